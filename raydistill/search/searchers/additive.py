"""Layers' damages that add up: allocations by their measured curves, corrected by what trials show.

Each layer has a curve: what the metric loses when that layer alone is pruned, without retraining (`Damages`). What
retraining wins back differs from layer to layer and is not known beforehand, so each layer's curve is
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
from raydistill.search.observations import Observation, comparable
from raydistill.search.searchers.base import Aim, Curves, Searcher, generator
from raydistill.search.searchers.damages import GRID, Damages, Reach, nearest_to
from raydistill.search.searchers.sobol import SobolSearcher
from raydistill.search.space import SearchSpace

_DRAWS = 48
_TARGETS = 24
_OTHERS = 3
ACCEPTED = 0.08
"""Of the dense network's metric: what a user would still accept to lose, the corner of the hypervolume."""
_DIFFERS = 0.5
"""Standard deviation of the layers' factors around the one for all, as a share of it."""
_BEYOND = 0.2
"""Of what a trial lost: how far it may lie off a sum of damages. Large ones add up to less, and would bend the rest."""
MORE = 0.3
"""What it is worth to be better than a constraint asks for, over what it is worth to keep it."""
_FAR = 0.08
"""Of what pruning could bring: trials that lie so far from a bound say half as much of what is brought there."""
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
    keeps_bounds = bounds_beside = True
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
        self.damages = Damages(space, curves, sizes, self.aim)
        self._space, self._seed, self._first = space, seed, startup
        self._sobol = SobolSearcher(space, seed)

    def with_curves(self, curves: Curves, sizes: Mapping[str, float], aim: Aim) -> AdditiveSearcher:
        return AdditiveSearcher(self._space, self._seed, self._first, curves, sizes, aim)

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar]:
        if not self.damages.layers:
            return self._sobol.suggest(trial, seen, stages)
        rng = generator(self._seed, trial)
        usable = comparable(seen, stages[-1:], 3)
        if trial < self._first or not usable:
            return self._by_curves(trial)
        model = Factors(self, usable)
        running = [o for o in seen if o.at(stages[-1]) is None and not o.ended]
        return self._space.from_unit(self.damages.on_the_bound(model.best(running, rng)))

    def _by_curves(self, trial: int) -> Mapping[str, Scalar]:
        """By the curves as they were measured, at totals spread over the front; all else as Sobol's sequence has it."""
        units = self._space.to_unit(self._sobol.suggest(trial, (), ()))
        share = self.damages.share(self._seed, trial)
        return self._space.from_unit(self.damages.by_curves(units, share))

    def features(self, units: np.ndarray) -> np.ndarray:
        """(n, 1 + 2 layers + 2 others): 1, each layer's damage and bend, each other value and its square."""
        of = self.damages
        between = [of.between(table, units) for table in (of.damage, of.bend)]
        rest = units[:, of.rest] - 0.5
        return np.concatenate([np.ones((len(units), 1)), *between, rest, rest**2], axis=1)


class Factors:
    """What the factors are after some trials: a normal distribution. scale: of the metric. dense, slope: of the line
    through the trials, the metric of the dense network and the one factor for all.

    together: of each figure of the network that counts, the own first, what layers that are pruned together bring over
    the sum of what each brings by itself, as trials near its bound have it.
    """

    def __init__(self, searcher: AdditiveSearcher, usable: Sequence[tuple[Observation, np.ndarray]]) -> None:
        self._of, self._damages = searcher, searcher.damages
        self.units = np.array([searcher._space.to_unit(o.values) for o, _ in usable])
        metric = np.array([point[0] for _, point in usable])
        self.together = self._together(usable)
        x = searcher.features(self.units)
        layers, others = len(self._damages.layers), len(self._damages.rest)
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
        self._layers, self.dense, self.slope = layers, dense, slope

    def _together(self, usable: Sequence[tuple[Observation, np.ndarray]]) -> list[float]:
        """See `together`. What a trial came to is told of the own figure alone; of another it is what was foreseen."""
        of = self._damages
        own = [of.own.share(point[1]) for _, point in usable if len(point) > 1]
        found = [self._brought(of.own, own)]
        for other in of.others:
            told = [] if other.foreseen is None else [other.share(other.foreseen(o.values)) for o, _ in usable]
            found.append(self._brought(other, told))
        return found

    def _brought(self, one: Reach, found: Sequence[float]) -> float:
        """found: of the trials, the share of what pruning could bring; none where it is not told."""
        if not one.bounded or len(found) != len(self.units) or not np.isfinite(found).all():
            return 1.0
        alone, shares = one.of(self._damages.places(self.units)), np.array(found)
        weights = (_FAR + np.abs(shares - one.least)) ** -2.0
        return float(np.clip((weights * alone) @ shares / max((weights * alone) @ alone, 1e-12), 0.2, 2.0))

    def best(self, running: Sequence[Observation], rng: np.random.Generator) -> np.ndarray:
        """(dimensions,) in the unit cube: the candidate that is expected to add the most."""
        of, damages = self._of, self._damages
        draws = self._drawn(_DRAWS, rng)
        candidates = self.candidates(rng)
        known = self.units
        if running:
            known = np.concatenate([known, [damages.space.to_unit(o.values) for o in running]])
        dense = self.mean[0]
        floor = of.aim.metric
        corner = min(dense - ACCEPTED * abs(dense), floor if np.isfinite(floor) else np.inf)
        (gains, lacking), (new, lacks) = self._reached(known), self._reached(candidates)
        ours = np.stack([of.features(known) @ draw for draw in draws])  # (draws, trials)
        theirs = np.stack([of.features(candidates) @ draw for draw in draws])
        for metrics, breaks in ((ours, lacking), (theirs, lacks)):
            broken = (metrics < floor) | breaks
            metrics -= (1.0 - MORE) * np.maximum(metrics - floor, 0.0) if np.isfinite(floor) else 0.0
            metrics[broken] = corner  # it is worth nothing
        if damages.least > 0.0:
            gains, new = (each - (1.0 - MORE) * np.maximum(each - damages.least, 0.0) for each in (gains, new))
        added = np.mean(
            [_added(gains, front - corner, new, value - corner) for front, value in zip(ours, theirs, strict=True)],
            axis=0,
        )
        return candidates[int(added.argmax())]

    def _reached(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) what is brought in the own figure, and (n,) whether a bound on a figure of the network is broken."""
        damages = self._damages
        places = damages.places(units)
        every = [one.of(places) * f for one, f in zip((damages.own, *damages.others), self.together, strict=True)]
        leasts = [damages.least, *(one.least for one in damages.others)]
        broken = np.any([found < least - 1e-9 for found, least in zip(every, leasts, strict=True)], axis=0)
        return every[0], broken

    def candidates(self, rng: np.random.Generator) -> np.ndarray:
        """(n, dimensions) in the unit cube: the best allocations by the mean, and by draws of what factors may be."""
        draws = (self.mean, *self._drawn(_DRAWS // 4, rng))
        return np.concatenate([self._candidates(draw, rng) for draw in draws])

    def _drawn(self, count: int, rng: np.random.Generator) -> np.ndarray:
        root = np.linalg.cholesky(self.covariance + 1e-12 * np.eye(len(self.mean)))
        drawn: np.ndarray = self.mean + rng.standard_normal((count, len(self.mean))) @ root.T
        return drawn

    def _candidates(self, draw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n, dimensions): the best allocations if the factors were these, at totals drawn evenly in log density."""
        of, layers = self._damages, self._layers
        factors = np.maximum(-draw[1 : 1 + layers], 0.02 * self.slope)
        bends = -draw[1 + layers : 1 + 2 * layers]
        damage = np.maximum.accumulate(factors[:, None] * of.damage + bends[:, None] * of.bend, axis=1)
        places, reached = of.choices(damage, self.together)
        wanted = np.asarray(of.wanted(reached, rng.random(_TARGETS)))
        if of.bounded:
            wanted[0] = max(float(reached.min()), of.least)
        if np.isfinite(self._of.aim.metric):  # the most that this draw takes the metric to bear
            lost = draw[0] - damage[np.arange(layers), places].sum(axis=1)
            kept = reached[lost >= self._of.aim.metric]
            wanted[-1] = kept.max() if len(kept) else reached.min()
        chosen = places[nearest_to(reached, wanted)]
        repeats = _OTHERS if of.rest else 1
        units = np.repeat(rng.random((1, len(of.space))), len(chosen) * repeats, axis=0)
        units[:, of.layers] = np.repeat(chosen, repeats, axis=0) / (GRID - 1)
        if of.rest:
            units[:, of.rest] = rng.random((len(units), len(of.rest)))
        return units


def _added(gains: np.ndarray, metrics: np.ndarray, new_gains: np.ndarray, new_metrics: np.ndarray) -> np.ndarray:
    """(candidates,): by how much the area under the front grows with each; both figures over the corner at 0, 0."""
    order = np.argsort(gains, kind="stable")
    x, y = gains[order], np.maximum.accumulate(np.maximum(metrics[order], 0.0)[::-1])[::-1]
    edges = np.concatenate([[0.0], x])
    widths = np.clip(np.minimum(edges[1:], new_gains[:, None]) - edges[:-1], 0.0, None)
    above = np.clip(new_metrics[:, None] - y, 0.0, None)
    beyond = np.clip(new_gains - (x[-1] if len(x) else 0.0), 0.0, None) * np.clip(new_metrics, 0.0, None)
    return (widths * above).sum(axis=1) + beyond
