"""Layers' damages that add up: allocations by their measured curves, corrected by what trials show.

Each layer has a curve: what the metric loses when that layer alone is pruned, without retraining. Where damage adds up,
the best levels for a total are those at which every layer's damage costs the same per weight removed (Lagrange's
multiplier). What retraining wins back differs from layer to layer and is not known beforehand, so each layer's curve is
multiplied by a factor, and bent by a second one, that are learned from the trials: linear regression with a prior
around one factor for all (Bishop 2006, section 3.3). A suggestion is the best of many allocations drawn from what the
factors may be: the one whose expected gain in hypervolume is the largest over all draws (Thompson sampling for the
candidates, Monte Carlo for the gain), with trials that still run counted as the model expects them. Where a sweep has
constraints, only what keeps them counts, and some candidates lie just within each (constrained expected improvement:
Gardner et al. 2014, "Bayesian optimization with inequality constraints", section 3).

Damages and metrics are compared as "the larger, the better"; all arrays below are (dimensions,) or (levels,) unless
they say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raydistill.records import Scalar
from raydistill.search.distributions import Distribution
from raydistill.search.observations import Observation, comparable
from raydistill.search.searchers.base import Aim, Curves, Searcher, generator
from raydistill.search.searchers.sobol import SobolSearcher
from raydistill.search.space import Dimension, SearchSpace

_GRID = 65
_PRICES = np.geomspace(1e-5, 1e5, 400)
_DRAWS = 48
_TARGETS = 24
_OTHERS = 3
_GOLDEN = 0.6180339887498949
_ACCEPTED = 0.08
"""Of the dense network's metric: what a user would still accept to lose, the corner of the hypervolume."""
_DIFFERS = 0.5
"""Standard deviation of the layers' factors around the one for all, as a share of it."""
_BEYOND = 0.2
"""Of what a trial lost: how far it may lie off a sum of damages. Large ones add up to less, and would bend the rest."""
_MORE = 0.3
"""What it is worth to be better than a constraint asks for, over what it is worth to keep it."""
_NEAR = 0.08
"""Of what pruning could bring: a trial that lies so near a bound is meant to lie on it, and is moved there."""
_STEPS = 8
_NOISE = 0.004
"""Standard deviation of a trial's metric, as a share of the dense network's, before trials say it."""


class AdditiveSearcher(Searcher):
    """The first objective is a metric, the second the figure of the network that pruning is for.

    curves: by weight; a layer without one is taken to lose by the square of its level. sizes: by weight, what a level
    of 1 brings in the second figure (its number of weights, its multiply-accumulates). aim: what constraints leave, in
    the unit of `sizes`. startup: trials by the curves alone. What is searched beside levels of layers is spread evenly
    at first, then learned too: a bend each.
    """

    wants_curves = True
    how = "by what each layer loses, measured first, and by results"

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        startup: int = 4,
        curves: Curves | None = None,
        sizes: Mapping[str, float] | None = None,
        aim: Aim | None = None,
    ) -> None:
        self.startup = 0  # nothing is known before the curves are
        self.aim = aim or Aim()
        self._space, self._seed, self._first = space, seed, startup
        self._sobol = SobolSearcher(space, seed)
        self._layers = [i for i, d in enumerate(space.dimensions) if is_level(d)]
        self._others = [i for i, d in enumerate(space.dimensions) if not is_level(d)]
        units = np.linspace(0.0, 1.0, _GRID)
        layers = [space.dimensions[i] for i in self._layers]
        self._levels = np.array([_levels(d, units) for d in layers]).reshape(len(layers), _GRID)
        self._damage = np.array(
            [_curve(levels, (curves or {}).get(str(d.weight))) for d, levels in zip(layers, self._levels, strict=True)]
        ).reshape(len(layers), _GRID)
        largest = self._damage[:, -1:].mean() if len(layers) else 1.0
        self._damage = self._damage / max(float(largest), 1e-12)
        # the bend: how a layer's damage may rise earlier or later than its curve says
        self._bend = np.sqrt(self._damage) * np.sqrt(self._damage[:, -1:]) - self._damage
        worth = np.array([float((sizes or {}).get(str(d.weight), 1.0)) for d in layers])
        self.whole = max(float(worth.sum()), 1e-12)
        self._gain = worth[:, None] * self._levels / self.whole
        self.least = min(self._as_gain(self.aim.figure), 1.0) if self.aim.figure > -np.inf else 0.0
        """Of what pruning could bring, what it has to."""

    def with_curves(self, curves: Curves, sizes: Mapping[str, float], aim: Aim) -> AdditiveSearcher:
        return AdditiveSearcher(self._space, self._seed, self._first, curves, sizes, aim)

    def _as_gain(self, figure: float) -> float:
        return (figure - self.aim.dense) / self.whole

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar]:
        if not self._layers:
            return self._sobol.suggest(trial, seen, stages)
        rng = generator(self._seed, trial)
        usable = comparable(seen, stages[-1:], 3)
        if trial < self._first or not usable:
            return self._by_curves(trial)
        model = _Model(self, usable)
        running = [o for o in seen if o.at(stages[-1]) is None and not o.ended]
        return self._space.from_unit(self._on_the_bound(model.best(running, rng)))

    def _by_curves(self, trial: int) -> Mapping[str, Scalar]:
        """By the curves as they were measured, at totals spread over the front; all else as Sobol's sequence has it."""
        units = self._space.to_unit(self._sobol.suggest(trial, (), ()))
        total = self._allocations(self._damage)
        reached = self._gain_of(total)
        share = (0.5 + self._seed * 0.1 + trial * _GOLDEN) % 1.0
        if self.least > 0.0:  # the first lies where the constraint does, and the others not far from it
            share = ((trial * _GOLDEN) % 1.0) ** 2
        low, high = max(reached.min(), self.least), reached.max()
        density = (1.0 - low) ** (1.0 - share) * max(1.0 - high, 1e-3) ** share  # its logarithm is spread evenly
        units[self._layers] = total[_nearest(reached, np.array([1.0 - density]), low)[0]] / (_GRID - 1)
        return self._space.from_unit(self._on_the_bound(units))

    def _allocations(self, damage: np.ndarray) -> np.ndarray:
        """(prices, layers) grid places: for each price of what is removed every layer's best level by itself."""
        return (self._gain * _PRICES[:, None, None] - damage).argmax(axis=2)

    def _gain_of(self, places: np.ndarray) -> np.ndarray:
        """(n,) of (n, layers) grid places."""
        return self._gain[np.arange(len(self._layers)), places].sum(axis=1)

    def _on_the_bound(self, units: np.ndarray) -> np.ndarray:
        """A point of the unit cube, all its levels stretched or shrunk alike onto the bound of the figure, where it
        breaks that or lies near it; what is foreseen says how far."""
        foreseen = self.aim.foreseen
        if foreseen is None or self.aim.figure == -np.inf:
            return units

        def stretched(factor: float) -> np.ndarray:
            moved = units.copy()
            moved[self._layers] = np.clip(units[self._layers] * factor, 0.0, 1.0)
            return moved

        def beyond(factor: float) -> float:
            return self._as_gain(foreseen(self._space.from_unit(stretched(factor)))) - self.least

        off = beyond(1.0)
        if not off <= _NEAR:  # it keeps the bound by more, or cannot be foreseen
            return units
        low, high = (0.0, 1.0) if off >= 0.0 else (1.0, 1.0 / max(float(units[self._layers].min()), 0.05))
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if beyond(middle) >= 0.0 else (middle, high)
        return stretched(high)

    def features(self, units: np.ndarray) -> np.ndarray:
        """(n, 1 + 2 layers + 2 others): 1, each layer's damage and bend, each other value and its square."""
        places = np.clip(units[:, self._layers] * (_GRID - 1), 0, _GRID - 1)
        below = np.minimum(places.astype(int), _GRID - 2)
        way, rows = places - below, np.arange(len(self._layers))
        between = [
            table[rows, below] * (1 - way) + table[rows, below + 1] * way for table in (self._damage, self._bend)
        ]
        rest = units[:, self._others] - 0.5
        return np.concatenate([np.ones((len(units), 1)), *between, rest, rest**2], axis=1)

    def gains(self, units: np.ndarray) -> np.ndarray:
        """(n,): what pruning brings, 1 for all of every layer by itself."""
        return self._gain_of(np.rint(units[:, self._layers] * (_GRID - 1)).astype(int))


class _Model:
    """What the factors are after some trials: a normal distribution. scale: of the metric.

    together: what layers that are pruned together bring in the figure of the network, over the sum of what each brings
    by itself, as trials near the bound have it.
    """

    def __init__(self, searcher: AdditiveSearcher, usable: Sequence[tuple[Observation, np.ndarray]]) -> None:
        self._of = searcher
        self.units = np.array([searcher._space.to_unit(o.values) for o, _ in usable])
        metric = np.array([point[0] for _, point in usable])
        self.together = self._together([point[1] for _, point in usable if len(point) > 1])
        x = searcher.features(self.units)
        layers, others = len(searcher._layers), len(searcher._others)
        total = x[:, 1 : 1 + layers].sum(axis=1)
        self.scale = max(float(np.abs(metric).max()), 1e-12)
        # one factor for all layers, and the dense metric, from a line through the trials
        slope = -np.cov(total, metric)[0, 1] / max(float(total.var(ddof=1)), 1e-12)
        floor = 0.2 * float(np.ptp(metric)) / max(float(np.ptp(total)), 1e-12)
        slope = max(float(slope), floor, 1e-6 * self.scale)
        dense = float(np.median(metric + slope * total))
        prior = np.concatenate([[dense], np.full(layers, -slope), np.zeros(layers + 2 * others)])
        spread = np.concatenate([
            [0.05 * self.scale], np.full(layers, _DIFFERS * slope), np.full(layers, _DIFFERS * slope),
            np.full(others, 0.03 * self.scale), np.full(others, 0.1 * self.scale),
        ])  # fmt: skip
        weighed = x / ((_NOISE * self.scale) ** 2 + (_BEYOND * np.maximum(dense - metric, 0.0)) ** 2)[:, None]
        self.covariance = np.linalg.inv(np.diag(spread**-2.0) + weighed.T @ x)
        self.mean = self.covariance @ (prior / spread**2.0 + weighed.T @ metric)
        self._layers, self._slope = layers, slope

    def _together(self, figures: Sequence[float]) -> float:
        """See `together`. figures: of the trials; none where they are not told."""
        of = self._of
        if of.aim.figure == -np.inf or len(figures) != len(self.units):
            return 1.0
        alone, found = of.gains(self.units), np.array([of._as_gain(figure) for figure in figures])
        weights = (_NEAR + np.abs(found - of.least)) ** -2.0
        return float(np.clip((weights * alone) @ found / max((weights * alone) @ alone, 1e-12), 0.2, 2.0))

    def best(self, running: Sequence[Observation], rng: np.random.Generator) -> np.ndarray:
        """(dimensions,) in the unit cube: the candidate that is expected to add the most."""
        of = self._of
        root = np.linalg.cholesky(self.covariance + 1e-12 * np.eye(len(self.mean)))
        draws = self.mean + rng.standard_normal((_DRAWS, len(self.mean))) @ root.T
        others = self.mean + rng.standard_normal((_DRAWS // 4, len(self.mean))) @ root.T
        candidates = np.concatenate([self._candidates(draw, rng) for draw in (self.mean, *others)])
        known = self.units
        if running:
            known = np.concatenate([known, [of._space.to_unit(o.values) for o in running]])
        dense = self.mean[0]
        floor = of.aim.metric
        corner = min(dense - _ACCEPTED * abs(dense), floor if np.isfinite(floor) else np.inf)
        gains, new = of.gains(known) * self.together, of.gains(candidates) * self.together
        ours = np.stack([of.features(known) @ draw for draw in draws])  # (draws, trials)
        theirs = np.stack([of.features(candidates) @ draw for draw in draws])
        for metrics, reached in ((ours, gains), (theirs, new)):
            broken = (metrics < floor) | (reached < of.least - 1e-9)
            metrics -= (1.0 - _MORE) * np.maximum(metrics - floor, 0.0) if np.isfinite(floor) else 0.0
            metrics[broken] = corner  # it is worth nothing
        if of.least > 0.0:
            gains, new = (each - (1.0 - _MORE) * np.maximum(each - of.least, 0.0) for each in (gains, new))
        added = np.mean(
            [_added(gains, front - corner, new, value - corner) for front, value in zip(ours, theirs, strict=True)],
            axis=0,
        )
        return candidates[int(added.argmax())]

    def _candidates(self, draw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, dimensions): the best allocations if the factors were these, at totals drawn evenly in log density."""
        of, layers = self._of, self._layers
        factors = np.maximum(-draw[1 : 1 + layers], 0.02 * self._slope)
        bends = -draw[1 + layers : 1 + 2 * layers]
        damage = np.maximum.accumulate(factors[:, None] * of._damage + bends[:, None] * of._bend, axis=1)
        places = np.unique(of._allocations(damage), axis=0)
        reached = of._gain_of(places) * self.together
        low, high = max(reached.min(), of.least), reached.max()
        shares = rng.random(_TARGETS)
        wanted = 1.0 - (1.0 - low) ** (1.0 - shares) * max(1.0 - high, 1e-3) ** shares
        if of.least > 0.0:
            wanted[0] = of.least
        if np.isfinite(of.aim.metric):  # the most that this draw takes the metric to bear
            lost = draw[0] - damage[np.arange(layers), places].sum(axis=1)
            kept = reached[lost >= of.aim.metric]
            wanted[-1] = kept.max() if len(kept) else low
        chosen = places[_nearest(reached, wanted, low)]
        repeats = _OTHERS if of._others else 1
        units = np.repeat(rng.random((1, len(of._space))), len(chosen) * repeats, axis=0)
        units[:, of._layers] = np.repeat(chosen, repeats, axis=0) / (_GRID - 1)
        if of._others:
            units[:, of._others] = rng.random((len(units), len(of._others)))
        return units


def _nearest(reached: np.ndarray, wanted: np.ndarray, low: float) -> np.ndarray:
    """(wanted,): which of `reached` is the nearest, of those from `low` on where there are any."""
    allowed = np.where(reached >= min(low, reached.max()) - 1e-9, reached, np.inf)
    found: np.ndarray = np.abs(allowed[None] - wanted[:, None]).argmin(axis=1)
    return found


def _added(gains: np.ndarray, metrics: np.ndarray, new_gains: np.ndarray, new_metrics: np.ndarray) -> np.ndarray:
    """(candidates,): by how much the area under the front grows with each; both figures over the corner at 0, 0."""
    order = np.argsort(gains, kind="stable")
    x, y = gains[order], np.maximum.accumulate(np.maximum(metrics[order], 0.0)[::-1])[::-1]
    edges = np.concatenate([[0.0], x])
    widths = np.clip(np.minimum(edges[1:], new_gains[:, None]) - edges[:-1], 0.0, None)
    above = np.clip(new_metrics[:, None] - y, 0.0, None)
    beyond = np.clip(new_gains - (x[-1] if len(x) else 0.0), 0.0, None) * np.clip(new_metrics, 0.0, None)
    return (widths * above).sum(axis=1) + beyond


def is_level(dimension: Dimension) -> bool:
    """Whether it says how much of a weight is pruned: a fraction, of one layer."""
    return dimension.weight is not None and draws_levels(dimension.distribution)


def draws_levels(distribution: Distribution) -> bool:
    """Whether all that it draws are fractions below 1."""
    ends = [distribution.from_unit(unit) for unit in (0.0, 1.0)]
    return all(isinstance(end, int | float) and 0 <= end < 1 for end in ends)


def _levels(dimension: Dimension, units: np.ndarray) -> np.ndarray:
    return np.array([float(dimension.distribution.from_unit(float(unit))) for unit in units])


def _curve(levels: np.ndarray, points: Sequence[tuple[float, float]] | None) -> np.ndarray:
    """(grid,): what is lost at each level, never less at a higher one. Between points the logarithm of the density
    tells how far it is: most of the loss comes at the end."""
    if not points:
        return levels**2
    known = np.array(sorted([(0.0, 0.0), *points]))
    lost = np.maximum.accumulate(np.maximum(known[:, 1], 0.0))
    place = np.interp(-np.log1p(-np.minimum(levels, 0.9999)), -np.log1p(-np.minimum(known[:, 0], 0.9999)), lost)
    return np.maximum.accumulate(place + 1e-6 * levels)
