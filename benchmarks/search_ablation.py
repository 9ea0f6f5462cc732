"""What each part of the search brings: the default with one of them switched off in turn, for the same epochs.

    python benchmarks/search_ablation.py [--surfaces additive21 ...] [--budgets 16 64] [--seeds 4]

Made-up networks (search_surfaces.py), counted as in search_quality.py and search_goals.py. Of the front: the share of
what is possible over that of the default, 1 where the part brings nothing, the median and the range over surfaces and
seeds. Of a bound: the points of top1 that the delivered network lacks (``sparsity >= 0.8``), or the volume of what
keeps a bound on a figure that is not optimised (``macs <= 0.5x``: every layer has MACs of its own, which few weights
may have most of), over the default's.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from search_goals import Goal, found
from search_methods import SCHEDULERS, Method
from search_quality import front, grown, search_once
from search_surfaces import HELD_OUT, POINTS, SURFACES, Surface, make_surface, volume

from raydistill.records import Scalar
from raydistill.search.searchers import Aim
from raydistill.search.searchers.base import Bound

_NEVER = 10**6
WHOLE = "the default"
NONE = SCHEDULERS["none"]
ADDITIVE = {"name": "additive"}
FRONT = {
    WHOLE: Method(WHOLE, ADDITIVE, NONE, curves=True),
    "no curves": Method("no curves", ADDITIVE, NONE),
    "no correction": Method("no correction", {**ADDITIVE, "startup": _NEVER}, NONE, curves=True),
    "neither": Method("neither", {**ADDITIVE, "startup": _NEVER}, NONE),
    "asha stops": Method("asha stops", ADDITIVE, SCHEDULERS["asha_mild"], curves=True),
    "moasha stops": Method("moasha stops", ADDITIVE, SCHEDULERS["moasha"], curves=True),
}
"""What is left of the default, or put to it."""
BESIDE = {
    "sobol, asha stops": Method.of("sobol+asha_mild"),
    "sobol, none stops": Method.of("sobol+none"),
    "sobol, placed, asha stops": Method.of("sobol+asha_mild+placed"),
    "sobol, placed": Method.of("sobol+none+placed"),
    "evolution, none stops": Method.of("evolution+none"),
    "evolution, placed": Method.of("evolution+none+placed"),
}
"""The same parts with searchers that have no model of layers."""
MACS = 0.5


def shares(method: Method, place: str, trials: int, seed: int, workers: int) -> float:
    source = make_surface(place, seed)
    line = grown(search_once(method, source, trials, seed, workers), source.dense)
    return line[-1][1] / source.possible()[next(iter(POINTS))]


class Costs:
    """Multiply-accumulates for a surface's layers: of each weight so many, over two decades."""

    def __init__(self, source: Surface) -> None:
        rng = np.random.default_rng([source.seed, source.layers, 7])
        each = source.sizes * 10 ** rng.uniform(0.0, 2.0, source.layers)
        self._paths = [d.path for d in source.space.dimensions if d.weight]
        self._each = each / each.sum()
        self.sizes = dict(zip(source.names, self._each, strict=True))

    def left(self, values: Mapping[str, Scalar]) -> float:
        return float(1.0 - np.array([float(values[path]) for path in self._paths]) @ self._each)

    def bound(self) -> Bound:
        return Bound(-MACS, -1.0, self.sizes, lambda values: -self.left(values))


def kept_volume(place: str, trials: int, seed: int, workers: int, steered: bool) -> float:
    """Of what keeps the bound on MACs."""
    source = make_surface(place, seed)
    costs = Costs(source)
    share = dict(zip(source.names, source.share, strict=True))
    more: dict[str, Any] = {"sizes": share, "aim": Aim(beside=(costs.bound(),)) if steered else Aim()}
    method, drawn = FRONT[WHOLE], _Drawn(source)
    finished = list(search_once(method, drawn, trials, seed, workers, more))
    macs = [costs.left(values) for values in drawn.order]
    kept = [(seen, true) for (_, seen, true), left in zip(finished, macs, strict=True) if left <= MACS + 1e-9]
    delivered = [kept[i][1] for i in front([seen for seen, _ in kept])]
    return volume(delivered, source.dense, next(iter(POINTS.values()))) if delivered else 0.0


class _Drawn:
    """A surface that remembers whose figures were asked for in the end, trial by trial."""

    def __init__(self, source: Surface) -> None:
        self._source, self.order = source, []

    def delivered(self, seed: int, values: Mapping[str, Scalar]) -> np.ndarray:
        self.order.append(values)
        return self._source.delivered(seed, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--surfaces", nargs="+", default=list(SURFACES))
    parser.add_argument("--budgets", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    cases = [(place, seed) for place in options.surfaces for seed in range(options.seeds)]
    held = sum(place in HELD_OUT for place in options.surfaces)
    about = f"{len(options.surfaces)} surfaces ({held} held out), {options.seeds} seeds, {options.workers} at once"
    for trials in options.budgets:
        whole = [shares(FRONT[WHOLE], place, trials, seed, options.workers) for place, seed in cases]
        print(f"\n{trials} trials, {about}\n{'':28}{'of possible':>12}   over the default's", flush=True)
        for name, method in {**FRONT, **BESIDE}.items():
            own = [shares(method, *case[:1], trials, case[1], options.workers) for case in cases]
            ratios = [one / all_of for one, all_of in zip(own, whole, strict=True)]
            print(f"{name:28}{statistics.mean(own):>12.1%}   {_middle(ratios)}", flush=True)
        goal = Goal(sparsity=0.8)
        for name, method in (("the bound steers", "additive+none+bounded"), ("it does not", "additive+none")):
            lacking = [found(place, seed, method, goal, trials, options.workers) for place, seed in cases]
            points = [one[0] for one in lacking if one is not None]
            print(
                f"{goal}, {name:20} lacks {_middle(points)} points; nothing in {len(lacking) - len(points)}", flush=True
            )
        pairs = [
            [kept_volume(place, trials, seed, options.workers, steered) for steered in (True, False)]
            for place, seed in cases
        ]
        ratios = [off / on for on, off in pairs if on > 0.0]
        print(
            f"macs <= {MACS:g}x, not optimised, where it does not steer: volume {_middle(ratios)} of that where it does"
        )


def _middle(figures: Sequence[float]) -> str:
    return f"{statistics.median(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})" if figures else "-"


if __name__ == "__main__":
    main()
