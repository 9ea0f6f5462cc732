"""What `search_quality.py` compares: a searcher, a trial scheduler, and what a method pays for beside trials.

A method's name is ``searcher+scheduler``, then options: ``curves`` (each layer's one-shot curve is measured before the
first trial, and paid for), ``confirm2`` (each member of the front is trained twice more at the end), ``placed`` (the
first trials have levels by the curves and by rules, as with ``warm_start: auto``; ``bycurves``: by the curves alone).
A searcher is one of `raydistill.search.searchers.SEARCHERS`, or one of those here, which no sweep has: they say what is
easily had. Any method may be written down too, in a YAML file (``--methods``):

    mine+none: {searcher: {name: evolution, step: 0.2}, trial_scheduler: {name: none}, curves: true, confirm: 1}

One that wants or takes curves (``wants_curves``, ``takes_curves``) is given them without the option.
A searcher whose constructor takes ``curves`` (weight to [(level, what top1 loses)]), ``sizes`` (weight to its number of
weights) or ``count`` (trials of the budget) is given them; one that costs what no trial shows has ``spent_epochs``, all
that it has used so far.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from raydistill.records import Scalar
from raydistill.search import SearchSpace
from raydistill.search.observations import Observation
from raydistill.search.searchers import LEARNS, SEARCHERS, PlacedSearcher, Searcher
from raydistill.search.searchers.base import ALL, Aim
from raydistill.sweep.file.spec import SearcherSection
from raydistill.sweep.planning.methods import PLACED_FIRST, make_searcher, startup_behind

if TYPE_CHECKING:
    from search_surfaces import Curves

BASE = "random+none"
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)
"""At which a layer's curve is measured."""

_SCORE, _MILD = ({"top1": 1.0, "planned_sparsity": weight} for weight in (0.3, 0.05))
SCHEDULERS: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "asha": {"name": "asha", "score": _SCORE},
    "hyperband": {"name": "hyperband", "score": _SCORE},
    "median": {"name": "median", "score": _SCORE},
    "asha_mild": {"name": "asha", "score": _MILD},
    "hyperband_mild": {"name": "hyperband", "score": _MILD},
    "median_mild": {"name": "median", "score": _MILD},
    "moasha": {"name": "moasha"},
    "promote": {"name": "moasha", "mode": "promote"},
    "moasha_hv": {"name": "moasha", "spread": "hypervolume"},
    "promote_hv": {"name": "moasha", "mode": "promote", "spread": "hypervolume"},
}
LATE = "_late"
"""At the end of a trial scheduler's name: it compares nothing before the masks are final."""

DEFAULT = (
    BASE, "random+asha", "random+hyperband", "random+median", "random+moasha", "random+promote", "random+asha_mild",
    "random+median_mild", "random+asha_late", "random+moasha_late", "sobol+none", "sobol+moasha", "sobol+promote",
    "sobol+asha_mild", "evolution+none", "evolution+moasha", "additive+none", "additive+asha_mild", "even+none",
    "priced+none+curves",
)  # fmt: skip
OPTUNA = ("motpe+none", "nsga2+none", "gp+none", "tpe+none")
"""Hundreds of times slower to ask than the others: left to --optuna."""

PLACED = ("placed", "bycurves")

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Method:
    """searcher, trial_scheduler: sections of a sweep file. curves: are measured first. confirm: seeds more of a front.

    late: the first rung is the first epoch but one with final masks. placed: ``placed``, ``bycurves`` or neither.
    """

    name: str
    searcher: Mapping[str, Any]
    trial_scheduler: Mapping[str, Any]
    curves: bool = False
    confirm: int = 0
    late: bool = False
    placed: str = ""

    @classmethod
    def of(cls, name: str) -> Method:
        """Raises ValueError where there is no such method."""
        searching, scheduling, *options = [*name.split("+"), "none"] if "+" not in name else name.split("+")
        late = scheduling.endswith(LATE)
        section = SCHEDULERS.get(scheduling.removesuffix(LATE))
        known = searching in SEARCHERS or searching in REFERENCES
        confirms = [int(o[7:]) for o in options if o[:7] == "confirm" and o[7:].isdecimal()]
        wrong = [o for o in options if o not in ("curves", *PLACED) and not (o[:7] == "confirm" and o[7:].isdecimal())]
        if section is None or not known or wrong:
            searchers, schedulers = ", ".join([*SEARCHERS, *REFERENCES]), ", ".join(SCHEDULERS)
            raise ValueError(
                f"no method {name}: searchers {searchers}; trial schedulers, also with {LATE}: {schedulers}; "
                f"options curves, confirm2, {', '.join(PLACED)}"
            )
        placed = next((option for option in options if option in PLACED), "")
        told = any(getattr(SEARCHERS.get(searching), each, False) for each in ("wants_curves", "takes_curves"))
        curves = "curves" in options or bool(placed) or told
        return cls(name, {"name": searching}, section, curves, sum(confirms), late, placed)

    def scheduling(self, pruned: int) -> dict[str, Any]:
        """The section where trials prune until that epoch."""
        return {**self.trial_scheduler, "grace_period": pruned + 2} if self.late else dict(self.trial_scheduler)

    def make(self, space: SearchSpace, seed: int, count: int, offered: Mapping[str, Any]) -> Searcher:
        if not self.placed:
            return self._alone(space, seed, count, offered)
        first = min(count, PLACED_FIRST)
        searcher = PlacedSearcher(self._alone(space, seed, count - first, offered, first), space, seed, first)
        told = searcher.with_curves(offered["curves"], offered["sizes"], offered.get("aim", Aim()))
        by_rule = offered.get("allocations") if self.placed == "placed" else None
        return told.with_allocations(by_rule) if by_rule else told

    def _alone(self, space: SearchSpace, seed: int, count: int, offered: Mapping[str, Any], first: int = 0) -> Searcher:
        """first: trials before its own, from which it learns too."""
        named = dict(self.searcher)
        if first and named["name"] in LEARNS:
            named["startup"] = startup_behind(named["name"])
        kind = {**REFERENCES, **SEARCHERS}.get(named["name"])
        wanted = inspect.signature(kind).parameters if kind is not None else {}
        given = {key: value for key, value in offered.items() if key in wanted and value is not None}
        if kind is None or (not given and named["name"] in SEARCHERS):
            return make_searcher(SearcherSection(**named), space, seed, count)
        options = {key: value for key, value in named.items() if key != "name"}
        if named["name"] in LEARNS and "startup" in wanted:
            options.setdefault("startup", max(4, min(10, count // 4)))
        return kind(space, seed, **{**given, **options})


class Even(Searcher):
    """The same level for every layer, as one would without a search; all else in the middle."""

    startup = ALL

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._seed = space, seed
        self._of_layer = np.array([bool(d.weight) for d in space.dimensions])

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar]:
        level = (self._seed * 0.1 + (trial + 1) * _GOLDEN) % 1.0
        return self._space.from_unit(np.where(self._of_layer, level, 0.5))


class Priced(Searcher):
    """Levels by the measured curves alone: for a sparsity drawn evenly, those that lose the least in sum by them."""

    startup = ALL

    def __init__(self, space: SearchSpace, seed: int, curves: Curves, sizes: Mapping[str, float]) -> None:
        self._space, self._seed = space, seed
        self._layers = [d for d in space.dimensions if d.weight]
        self._grid = np.linspace(0.0, 0.99, 100)
        known = [np.array([(0.0, 0.0), *curves[str(d.weight)]]).T for d in self._layers]
        losses = np.stack([np.interp(self._grid, levels, lost) for levels, lost in known])
        self._losses = np.maximum.accumulate(losses, axis=1)
        counts = np.array([sizes[str(d.weight)] for d in self._layers])
        self._share = counts / counts.sum()
        self._prices = np.geomspace(1e-4, 100.0, 400)
        worth = self._prices[:, None, None] * self._share[:, None] * self._grid - self._losses
        self._best = self._grid[worth.argmax(axis=2)]  # (prices, layers)

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar]:
        wanted = 0.4 + 0.59 * ((self._seed * 0.1 + (trial + 1) * _GOLDEN) % 1.0)
        total = self._best @ self._share
        after = int(np.clip(np.searchsorted(total, wanted), 1, len(total) - 1))
        low, high = total[after - 1], total[after]
        way = 0.0 if high <= low else float(np.clip((wanted - low) / (high - low), 0.0, 1.0))
        levels = self._best[after - 1] * (1 - way) + self._best[after] * way
        by_path = dict(zip([d.path for d in self._layers], levels, strict=True))
        units = [
            float(np.clip(d.distribution.to_unit(float(by_path[d.path])), 0, 1)) if d.path in by_path else 0.5
            for d in self._space.dimensions
        ]
        return self._space.from_unit(units)


REFERENCES: dict[str, Any] = {"even": Even, "priced": Priced}
