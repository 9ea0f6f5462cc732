"""The first trials where an expert would begin; all others by another searcher.

Most have levels by the layers' own curves (`Damages`), at totals spread over the front or, where there are bounds, near
them. Between them stand allocations by rule (ERK, LAMP, ...), where these differ: curves are one-shot, and what
retraining wins back differs from layer to layer. What is searched beside levels of layers is spread evenly.

With a pool they are chosen by evidence: of levels spread evenly those that are best in what is lost when the network is
pruned to them at once, and in what that brings.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np

from raydistill.records import Scalar
from raydistill.search.observations import Observation
from raydistill.search.points import nearest
from raydistill.search.searchers.base import Aim, Allocations, Curves, Searcher
from raydistill.search.searchers.damages import Damages, nearest_to
from raydistill.search.searchers.sobol import SobolSearcher
from raydistill.search.selection import best
from raydistill.search.space import SearchSpace

CURVES = "curves"
_EVERY = 4
"""So many placed trials have one by a rule among them."""
_LEAST = 1e-3
"""Of a loss, and of what is left of the network, that logarithms are taken of."""
_DIFFER = 0.05
"""Of [0, 1]: how far two allocations' levels lie apart on average, from which on both are tried."""


class PlacedSearcher(Searcher):
    """searcher: whose trials come behind the first `placed`; it is told their results. rules: whether there are other
    allocations than those by the curves. pool: of so many candidates the placed ones are chosen; 0: by curves and
    rules."""

    wants_curves = True

    def __init__(
        self, searcher: Searcher, space: SearchSpace, seed: int, placed: int, rules: bool = True, pool: int = 0
    ) -> None:
        self.startup = 0  # nothing is known before the curves are
        self.wants_allocations = rules and not pool
        self.pool = pool
        self.keeps_bounds, self.bounds_beside = searcher.keeps_bounds, searcher.bounds_beside
        self.size = placed + searcher.size
        self.placed = placed
        chosen = f"the best of {pool} pruned at once" if pool else "by what each layer loses, measured first"
        self.how = f"{placed} trials {chosen}, then its own"
        self._searcher, self._space, self._seed = searcher, space, seed
        self._sobol = SobolSearcher(space, seed)
        self._damages = Damages(space)
        self._rules: dict[str, np.ndarray] = {}
        self._chosen: list[np.ndarray] = []

    def with_curves(self, curves: Curves, sizes: Mapping[str, float], aim: Aim) -> PlacedSearcher:
        told = copy.copy(self)
        told._damages = Damages(self._space, curves, sizes, aim)
        told._searcher = self._searcher.with_curves(curves, sizes, aim)
        told.keeps_bounds, told.bounds_beside = told._searcher.keeps_bounds, told._searcher.bounds_beside
        return told

    def with_allocations(self, allocations: Allocations) -> PlacedSearcher:
        told = copy.copy(self)
        told._rules = {rule: np.array([self._units(levels) for levels in rows]) for rule, rows in allocations.items()}
        return told

    def candidates(self) -> list[Mapping[str, Scalar]]:
        return [self._space.from_unit(units) for units in self._pool()]

    def with_evidence(self, losses: Sequence[float]) -> PlacedSearcher:
        """The better spread first: whoever has fewer trials has them along the whole front too."""
        told, pool = copy.copy(self), np.array(self._pool())
        lost = np.array(losses, dtype=float)
        lost = np.where(np.isfinite(lost), lost, np.inf)
        gains, kept = self._damages.gains(pool), self._damages.keeps(pool) & np.isfinite(lost)
        if not kept.any():
            return told
        numbers = np.flatnonzero(kept)
        points = np.stack(
            [-np.log(np.maximum(lost[numbers], _LEAST)), -np.log(np.maximum(1.0 - gains[numbers], _LEAST))]
        )
        best_of = numbers[best(points.T, min(self.placed, len(numbers)), "hypervolume")]
        order = best_of[np.argsort(gains[best_of], kind="stable")]
        told._chosen = [self._damages.on_the_bound(pool[i]) for i in (*order[1::2], *order[::2])]
        return told

    def _pool(self) -> list[np.ndarray]:
        """Points of the unit cube, spread evenly: a pool around what the curves say was no better than the curves."""
        return [self._space.to_unit(self._sobol.suggest(number, (), ())) for number in range(self.pool)]

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar] | None:
        if trial >= self.placed:
            return self._searcher.suggest(trial - self.placed, seen, stages)
        return self._space.from_unit(self._place(trial)[1])

    def origin(self, trial: int) -> str:
        if trial >= self.placed:
            return self._searcher.origin(trial - self.placed)
        return f"levels by {self._place(trial)[0]}"

    def _place(self, trial: int) -> tuple[str, np.ndarray]:
        """The rule, and the point of the unit cube."""
        if trial < len(self._chosen):
            return "evidence", self._chosen[trial]
        units = self._space.to_unit(self._sobol.suggest(trial, (), ()))
        share = self._damages.share(self._seed, trial)
        by_curves = self._damages.by_curves(units, share)
        if trial % _EVERY != _EVERY - 1 or not self._rules:
            return CURVES, by_curves
        wanted = self._damages.gains(by_curves[None])
        others: dict[str, np.ndarray] = {CURVES: by_curves}
        for rule, rows in self._rules.items():
            points = np.repeat(units[None], len(rows), axis=0)
            points[:, self._damages.layers] = rows
            point = self._damages.on_the_bound(points[nearest_to(self._damages.gains(points), wanted)[0]])
            if min(self._apart(point, other) for other in others.values()) > _DIFFER:
                others[rule] = point
        rules = [*others][1:] or [CURVES]
        rule = rules[(trial // _EVERY) % len(rules)]
        return rule, others[rule]

    def _apart(self, one: np.ndarray, other: np.ndarray) -> float:
        layers = self._damages.layers
        return float(np.abs(one[layers] - other[layers]).mean())

    def _units(self, levels: Mapping[str, float]) -> list[float]:
        found = []
        for dimension in (self._space.dimensions[i] for i in self._damages.layers):
            drawn = nearest(dimension.distribution, float(levels.get(str(dimension.weight), 0.0)))
            assert drawn is not None  # `is_level`
            found.append(dimension.distribution.to_unit(drawn))
        return found
