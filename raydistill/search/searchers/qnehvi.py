"""Bayesian optimisation with noise: a Gaussian process an objective, the point that is expected to add the most
hypervolume (Daulton, Balandat, Bakshy 2021, arXiv 2105.08195). The models are in `raydistill.search.bayesian`.

Where levels of layers are searched for one metric and one figure of the network, it is told what each layer loses by
itself: that is the metric's trend, and candidates are what `AdditiveSearcher` would choose among, and others. What the
layers bring is known then, and not learned; constraints are held against the models' own outcomes.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.records import Scalar
from raydistill.search.distributions import Distribution
from raydistill.search.observations import Observation, comparable
from raydistill.search.pareto import pareto_rank
from raydistill.search.searchers.additive import ACCEPTED, MORE, AdditiveSearcher, Factors
from raydistill.search.searchers.base import Aim, Curves, Searcher, generator
from raydistill.search.searchers.damages import Reach
from raydistill.search.searchers.sobol import SobolSearcher
from raydistill.search.space import SearchSpace

if TYPE_CHECKING:
    from raydistill.search.bayesian import Table, Told

Key = tuple[float, ...]

_MOST = 128
"""Trials that a model is made of; of more, the best ranks."""
_EVEN = _CHILDREN = 48
_ALLOCATED = 128
"""Candidates of each kind."""
_STEP = 0.1
"""Standard deviation of a child's mutations, in the unit cube."""
_ALL = 2048
"""Points up to which all of a space that has no more are candidates."""
_SHARES = 512
_EXPLAINED = 0.9
"""Of the figure's variance, by the sum of what the layers bring, below which it is learned instead."""


class QNEHVISearcher(Searcher):
    """startup: trials with results before there is a model; until then they are drawn from a Sobol sequence, or by the
    layers' curves. curves, sizes, aim: see `AdditiveSearcher`.

    Raises:
        ConfigError: BoTorch is not installed.
    """

    takes_curves = True

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        startup: int = 10,
        curves: Curves | None = None,
        sizes: Mapping[str, float] | None = None,
        aim: Aim | None = None,
    ) -> None:
        if importlib.util.find_spec("botorch") is None:
            way_out = "pip install 'raydistill[botorch]' (Python 3.11 or newer), or choose another searcher"
            raise ConfigError(Fault("searcher", "qnehvi needs BoTorch", ABSENT, way_out))
        self._space, self._seed, self._first = space, seed, startup
        self.keeps_bounds = self.bounds_beside = aim is not None
        self._additive = AdditiveSearcher(space, seed, startup, curves, sizes, aim)
        self._damages, self._aim = self._additive.damages, self._additive.aim
        if self._damages.layers:  # curves may be told before the first trial
            self.startup, self.how = 0, "by what each layer loses where that is measured, and by results"
        else:
            self.startup = startup
        self._measured, self._sized = bool(curves), bool(sizes) and bool(self._damages.layers)
        self._sobol = SobolSearcher(space, seed)
        self._grids = {i: grid for i, d in enumerate(space.dimensions) if (grid := _grid(d.distribution)) is not None}
        self._words = {i: len(grid) for i, grid in self._grids.items() if _unordered(space.dimensions[i].distribution)}
        self._every = self._all_points()

    def with_curves(self, curves: Curves, sizes: Mapping[str, float], aim: Aim) -> QNEHVISearcher:
        return QNEHVISearcher(self._space, self._seed, self._first, curves, sizes, aim)

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar] | None:
        tried = {_key(self._space.to_unit(o.values)) for o in seen}
        if self._every is not None and all(_key(units) in tried for units in self._every):
            return None
        usable = comparable(seen, stages, max(self._first, 2))
        units = self._promising(trial, seen, usable, tried) if usable else None
        if units is None:
            behind = self._measured  # placed trials, which begin by the same curves
            units = self._even(max(trial, len(seen)) if behind else trial, tried)
        return self._space.from_unit(units)

    def _even(self, number: int, tried: Collection[Key]) -> np.ndarray:
        """By the curves where they were measured, else by Sobol's sequence; of what was not tried, if there is such."""
        units = self._space.to_unit(self._sobol.suggest(number, (), ()))
        if self._measured and self._damages.layers:
            units = self._damages.by_curves(units, self._damages.share(self._seed, number))
        if self._every is not None and _key(self._snapped(units)) in tried:
            left = self._untried(self._every, tried)
            return left[int(np.abs(left - units).sum(axis=1).argmin())]
        return units

    def _promising(
        self,
        trial: int,
        seen: Sequence[Observation],
        usable: Sequence[tuple[Observation, np.ndarray]],
        tried: Collection[Key],
    ) -> np.ndarray | None:
        """(dimensions,): the candidate that promises the most; None where all of them were tried."""
        bayesian = _bayesian()
        rng = generator(self._seed, trial)
        compared = {o.trial for o, _ in usable}
        running = [o for o in seen if o.trial not in compared and not o.ended]
        usable = _foremost(usable)
        factors = self._factors(usable)
        candidates = self._untried(self._candidates(usable, factors, rng), tried)
        if not len(candidates):
            return None
        units, points = self._units([o for o, _ in usable]), np.array([point for _, point in usable])
        known = bayesian.Known(units, points, self._units(running), self._words)
        promise = bayesian.Promise(known, self._told(usable, factors), int(rng.integers(2**31)))
        found = promise.of(candidates)
        if len(self._grids) < len(self._space):
            moved = self._untried(self._snapped(promise.moved(candidates, found, list(self._grids))), tried)
            candidates, found = np.concatenate([candidates, moved]), np.concatenate([found, promise.of(moved)])
        chosen = candidates[int(found.argmax())]
        bounded = self._damages.on_the_bound(chosen)
        return chosen if _key(self._snapped(bounded)) in tried else bounded

    def _factors(self, usable: Sequence[tuple[Observation, np.ndarray]]) -> Factors | None:
        """The layers' factors as the trials have them; None where the second objective is not what layers bring."""
        if not self._sized or len(usable[0][1]) != 2 or len(usable) < 3:
            return None
        return Factors(self._additive, usable)

    def _told(self, usable: Sequence[tuple[Observation, np.ndarray]], factors: Factors | None) -> Told:
        bayesian = _bayesian()

        def table(values: np.ndarray) -> Table:
            return bayesian.Table(self._damages.layers, values)

        if factors is None:
            return bayesian.Told(floor=self._aim.metric, more=MORE)
        trend = None
        if self._measured:
            accepted = max(ACCEPTED * abs(factors.dense), 1e-9 * factors.scale)
            trend = bayesian.Trend(factors.dense, factors.slope, accepted, table(self._damages.damage))
        own = self._shares(usable)
        figures = [(self._damages.own, own), *((one, self._foreseen(one, usable)) for one in self._damages.others)]
        least = [one.least if one.bounded else -math.inf for one, _ in figures]
        known = [
            bayesian.Figure(table(one.gain), shares, bound)
            for (one, shares), bound in zip(figures, least, strict=True)
            if shares is not None
        ]
        return bayesian.Told(self._aim.metric, trend, known if own is not None else (), MORE)

    def _shares(self, usable: Sequence[tuple[Observation, np.ndarray]]) -> np.ndarray | None:
        """(n,): what trials brought in the second objective, 1 for all of every layer; None where that is not what the
        layers bring. Unless it is bounded its unit is found out: a task of one's own may count otherwise."""
        own = self._damages.own
        found = np.array([point[1] for _, point in usable])
        if own.bounded:
            return (found - own.dense) / own.whole
        gains = self._damages.between(own.gain, self._units([o for o, _ in usable])).sum(axis=1)
        if np.ptp(gains) < 1e-9 or np.ptp(found) < 1e-12:
            return None
        whole, dense = np.polyfit(gains, found, 1)
        off = found - (dense + whole * gains)
        if whole <= 0.0 or off.var() > (1.0 - _EXPLAINED) * found.var():
            return None
        return (found - dense) / whole

    def _foreseen(self, one: Reach, usable: Sequence[tuple[Observation, np.ndarray]]) -> np.ndarray:
        """(n,): what trials brought in a figure that is bounded only; where it is not foreseen, the layers' sum."""
        observations = [o for o, _ in usable]
        sums = self._damages.between(one.gain, self._units(observations)).sum(axis=1)
        if one.foreseen is None:
            return sums
        told = np.array([one.share(one.foreseen(o.values)) for o in observations])
        return np.where(np.isfinite(told), told, sums)

    def _candidates(
        self, usable: Sequence[tuple[Observation, np.ndarray]], factors: Factors | None, rng: np.random.Generator
    ) -> np.ndarray:
        """(n, dimensions): even ones, children of the front, and the best allocations by the layers' factors."""
        if self._every is not None:
            return self._every
        size = len(self._space)
        even = rng.random((_EVEN, size))
        front = self._units([o for (o, _), rank in zip(usable, _ranks(usable), strict=True) if rank == 0])
        parents = front[rng.integers(len(front), size=_CHILDREN)]
        moves = rng.random((_CHILDREN, size)) < max(0.2, 1.5 / size)
        children = np.clip(parents + moves * rng.normal(0.0, _STEP, (_CHILDREN, size)), 0.0, 1.0)
        switched = (rng.random((_CHILDREN, size)) < 0.2) & np.isin(np.arange(size), list(self._grids))
        children = np.where(switched, rng.random((_CHILDREN, size)), children)
        allocated = np.zeros((0, size)) if factors is None else rng.permutation(factors.candidates(rng))[:_ALLOCATED]
        return self._snapped(np.concatenate([even, children, allocated]))

    def _all_points(self) -> np.ndarray | None:
        """(n, dimensions): every point of a space that has only a few."""
        if len(self._grids) < len(self._space) or math.prod(map(len, self._grids.values())) > _ALL:
            return None
        return np.array(list(itertools.product(*self._grids.values())))

    def _snapped(self, units: np.ndarray) -> np.ndarray:
        """The middles of the shares in which points lie, of dimensions that have but a few values."""
        snapped = units.copy()
        for column, grid in self._grids.items():
            places = np.clip((units[..., column] * len(grid)).astype(int), 0, len(grid) - 1)
            snapped[..., column] = grid[places]
        return snapped

    def _untried(self, units: np.ndarray, tried: Collection[Key]) -> np.ndarray:
        kept = [_key(each) not in tried for each in units]
        return units[np.array(kept, dtype=bool)]

    def _units(self, observations: Sequence[Observation]) -> np.ndarray:
        """(n, dimensions)."""
        return np.array([self._space.to_unit(o.values) for o in observations]).reshape(-1, len(self._space))


def _bayesian() -> ModuleType:
    """It takes seconds, and most sweeps do without; what libraries warn of is not the user's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from raydistill.search import bayesian
    return bayesian


def _key(units: np.ndarray) -> Key:
    return tuple(np.round(units, 6).tolist())


def _ranks(usable: Sequence[tuple[Observation, np.ndarray]]) -> np.ndarray:
    points = np.array([point for _, point in usable])
    return pareto_rank(points, ["max"] * points.shape[1])


def _foremost(usable: Sequence[tuple[Observation, np.ndarray]]) -> Sequence[tuple[Observation, np.ndarray]]:
    if len(usable) <= _MOST:
        return usable
    kept = np.argsort(_ranks(usable), kind="stable")[:_MOST]
    return [usable[i] for i in sorted(kept.tolist())]


def _grid(distribution: Distribution) -> np.ndarray | None:
    """The middles of its values' shares; None where there are too many to tell from a continuous one."""
    found = {distribution.to_unit(distribution.from_unit(float(unit))) for unit in np.linspace(0.0, 1.0, _SHARES)}
    return np.array(sorted(found)) if len(found) < _SHARES // 2 else None


def _unordered(distribution: Distribution) -> bool:
    options = getattr(distribution, "options", ())
    return len(options) > 2 and any(isinstance(option, str) for option in options)
