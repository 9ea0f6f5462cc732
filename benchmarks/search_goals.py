"""How good is the network that a bound asks for: the best one with 80 % sparsity, the sparsest that loses two points?

Made-up networks (search_surfaces.py), every method with the epochs of so many full trials, as in search_quality.py. A
method delivers what a sweep would: of its finished trials that keep the bound by the validation figures it saw, the
best in top1, or the sparsest. Counted is what that network truly is.

    python benchmarks/search_goals.py [--surfaces additive5 ...] [--budgets 16 64] [--seeds 10] [--workers 4]

Printed for each goal, the mean over seeds and surfaces, those tuned on and those held out apart: for
``sparsity >= 0.8`` the points of top1 that the delivered network lacks to the best possible at 80 %, and how often
nothing was delivered; for ``top1_drop <= 0.02`` the density of the delivered network over the least possible with its
own true top1 (1 is the best), how far it truly drops beyond the bound, and how often nothing was delivered.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from search_methods import Method
from search_quality import search_once
from search_surfaces import HELD_OUT, SURFACES, make_surface

from raydistill.search.constraints import Constraint
from raydistill.search.searchers import Aim

METHODS = ("random+none", "sobol+asha_mild", "evolution+moasha", "even+none", "additive+none", "additive+none+bounded")
BOUNDED = "+bounded"
"""At the end of a method's name: its searcher is told the bound."""


@dataclass(frozen=True)
class Goal:
    """Of one kind: sparsity, the least; or drop, the most of top1."""

    sparsity: float = 0.0
    drop: float = math.inf

    def __str__(self) -> str:
        return f"sparsity >= {self.sparsity:g}" if self.sparsity else f"top1_drop <= {self.drop:g}"

    def constraint(self) -> Constraint:
        return (
            Constraint("sparsity", ">=", self.sparsity) if self.sparsity else Constraint("top1_drop", "<=", self.drop)
        )

    def delivered(self, seen: Sequence[np.ndarray], dense: float) -> int | None:
        """Which of (top1, sparsity) a sweep would deliver."""
        kept = [
            i for i, (top1, zeros) in enumerate(seen) if zeros >= self.sparsity - 1e-9 and dense - top1 <= self.drop
        ]
        if not kept:
            return None
        return max(kept, key=lambda i: tuple(seen[i]) if self.sparsity else (seen[i][1], seen[i][0]))

    def aim(self, dense: float) -> Aim:
        return Aim(figure=self.sparsity) if self.sparsity else Aim(metric=dense - self.drop)


GOALS = (Goal(sparsity=0.8), Goal(sparsity=0.9), Goal(drop=0.02))


def found(place: str, seed: int, name: str, goal: Goal, trials: int, workers: int) -> tuple[float, float] | None:
    """(what lacks, what is too much) of the delivered network: see above; None: there is none."""
    source = make_surface(place, seed)
    bounded = name.endswith(BOUNDED)
    method = Method.of(name.removesuffix(BOUNDED))
    offered: dict[str, Any] = {"sizes": dict(zip(source.names, source.share, strict=True))}
    offered |= {"aim": goal.aim(source.dense)} if bounded else {}
    bounds = [goal.constraint()] if goal.sparsity else []
    finished = list(search_once(method, source, trials, seed, workers, offered, bounds))
    index = goal.delivered([seen for _, seen, _ in finished], source.dense)
    if index is None:
        return None
    top1, zeros = finished[index][2]
    possible = source.optimum()
    if goal.sparsity:
        best = max(best for best, there in possible if there >= goal.sparsity)
        return 100 * (best - float(top1)), 0.0
    at_least = [1 - there for best, there in possible if best >= top1]
    return (1 - float(zeros)) / min(at_least), 100 * max(0.0, source.dense - float(top1) - goal.drop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", nargs="+", default=list(SURFACES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--budgets", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    unknown = [place for place in options.surfaces if place not in SURFACES]
    if unknown:
        sys.exit(f"error: no surface {unknown[0]}; there are {', '.join(SURFACES)}")
    asked = [
        (place, seed, name, goal, trials, options.workers)
        for goal in GOALS
        for trials in options.budgets
        for name in options.methods
        for place in options.surfaces
        for seed in range(options.seeds)
    ]
    with ProcessPoolExecutor(options.processes) as pool:
        told = dict(zip(asked, pool.map(_found, asked, chunksize=4), strict=True))
    for goal in GOALS:
        unit = "points of top1 lacking" if goal.sparsity else "density over the least; points beyond"
        for trials in options.budgets:
            print(f"\n{goal}, {trials} trials, {options.workers} at once, {options.seeds} seeds: {unit}")
            print(f"{'':24}{'tuned on':>16}{'held out':>16}   nothing")
            rows = []
            for name in options.methods:
                mine = {key: value for key, value in told.items() if key[2:5] == (name, goal, trials)}
                parts = [
                    [value for (place, *_), value in mine.items() if (place in HELD_OUT) == held and value is not None]
                    for held in (False, True)
                ]
                missing = sum(value is None for value in mine.values())
                figures = "".join(f"{_said(part, goal):>16}" for part in parts)
                order = statistics.mean(value for part in parts for value, _ in part) if any(parts) else math.inf
                rows.append((order, f"{name:24}{figures}   {missing:3} of {len(mine)}"))
            print("\n".join(row for _, row in sorted(rows)))


def _found(asked: tuple[str, int, str, Goal, int, int]) -> tuple[float, float] | None:
    return found(*asked)


def _said(part: Sequence[tuple[float, float]], goal: Goal) -> str:
    if not part:
        return "-"
    lacking = statistics.mean(value for value, _ in part)
    beyond = statistics.mean(value for _, value in part)
    return f"{lacking:.2f}" if goal.sparsity else f"{lacking:.2f}; {beyond:.2f}"


if __name__ == "__main__":
    main()
