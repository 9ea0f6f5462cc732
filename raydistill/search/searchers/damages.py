"""What layers lose each by itself, as one sum: allocations by Lagrange's multiplier, within what constraints leave.

Where damage adds up, the best levels for a total are those at which every layer's damage costs the same per weight
removed. Where another figure of the network is bounded too (MACs, while sparsity is optimised), a part of the price is
paid for that one: of the allocations that keep every bound, the ones that lose the least for what they bring.

Levels lie on a grid of the unit cube. Damages and figures are compared as "the larger, the better"; arrays are
(layers,) or (layers, grid) unless they say otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raydistill.records import Scalar
from raydistill.search.distributions import Distribution
from raydistill.search.searchers.base import Aim, Curves
from raydistill.search.space import Dimension, SearchSpace

GRID = 65
_PRICES = np.geomspace(1e-5, 1e5, 400)
_PARTS = np.linspace(0.05, 1.0, 20)
"""Of the price, for a bounded figure that is not the one optimised."""
_FEWER = 4
"""One in so many prices is tried with each part."""
_GOLDEN = 0.6180339887498949
_NEAR = 0.08
"""Of what pruning could bring: a trial that lies so near a bound is meant to lie on it, and is moved there."""
_STEPS = 8


@dataclass(frozen=True)
class Reach:
    """What pruning brings in one figure of the network. gain: (layers, grid), 1 for all of every layer by itself.
    whole: what that is in the figure's unit. dense: the figure of the network that nothing is pruned of. least: of
    `whole`, what has to be brought; not above 0 where nothing bounds it. foreseen: see `Aim`."""

    gain: np.ndarray
    whole: float
    dense: float
    least: float
    foreseen: Callable[[Mapping[str, Scalar]], float] | None

    @property
    def bounded(self) -> bool:
        return self.least > 0.0

    def share(self, figure: float) -> float:
        return (figure - self.dense) / self.whole

    def of(self, places: np.ndarray) -> np.ndarray:
        """(n,) of (n, layers) grid places."""
        found: np.ndarray = self.gain[np.arange(len(self.gain)), places].sum(axis=1)
        return found


class Damages:
    """curves: by weight; a layer without one is taken to lose by the square of its level. sizes: by weight, what a
    level of 1 brings in the figure that is optimised. own: that figure; others: the bounded ones beside it."""

    def __init__(
        self,
        space: SearchSpace,
        curves: Curves | None = None,
        sizes: Mapping[str, float] | None = None,
        aim: Aim | None = None,
    ) -> None:
        aim = aim or Aim()
        self.space = space
        self.layers = [i for i, d in enumerate(space.dimensions) if is_level(d)]
        self.rest = [i for i, d in enumerate(space.dimensions) if not is_level(d)]
        units = np.linspace(0.0, 1.0, GRID)
        layers = [space.dimensions[i] for i in self.layers]
        levels = np.array([_levels(d, units) for d in layers]).reshape(len(layers), GRID)
        damage = np.array(
            [_curve(each, (curves or {}).get(str(d.weight))) for d, each in zip(layers, levels, strict=True)]
        ).reshape(len(layers), GRID)
        largest = damage[:, -1:].mean() if len(layers) else 1.0
        self.damage = damage / max(float(largest), 1e-12)
        self.bend = np.sqrt(self.damage) * np.sqrt(self.damage[:, -1:]) - self.damage
        """How a layer's damage may rise earlier or later than its curve says."""

        def reach(sizes: Mapping[str, float], least: float, dense: float, foreseen: object) -> Reach:
            worth = np.array([float(sizes.get(str(d.weight), 1.0)) for d in layers])
            whole = max(float(worth.sum()), 1e-12)
            least = min((least - dense) / whole, 1.0)
            return Reach(worth[:, None] * levels / whole, whole, dense, least, foreseen)  # type: ignore[arg-type]

        self.own = reach(sizes or {}, aim.figure, aim.dense, aim.foreseen)
        self.others = [reach(one.sizes, one.least, one.dense, one.foreseen) for one in aim.beside]
        self.least = max(self.own.least, 0.0)

    @property
    def bounded(self) -> list[Reach]:
        return [one for one in (self.own, *self.others) if one.bounded]

    def choices(self, damage: np.ndarray, together: Sequence[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(n, layers) grid places and (n,) what each brings: for each price of what is removed every layer's best level
        by itself; of these the ones that keep the bounds, or come nearest to that.

        together: of the own figure and the others, what layers that are pruned together bring over the sum of what each
        brings by itself.
        """
        factors = together or [1.0] * (1 + len(self.others))
        found = [(self.own.gain * _PRICES[:, None, None] - damage).argmax(axis=2)]
        for other in self.others:
            worths = [(1.0 - part) * self.own.gain + part * other.gain for part in _PARTS]
            found += [(worth * _PRICES[::_FEWER, None, None] - damage).argmax(axis=2) for worth in worths]
        places = np.unique(np.concatenate(found), axis=0)
        lacking = np.max(
            [
                np.maximum(one.least - one.of(places) * factor, 0.0)
                for one, factor in zip((self.own, *self.others), factors, strict=True)
            ],
            axis=0,
        )
        places = places[lacking <= lacking.min() + 1e-9]
        reached = self.own.of(places) * factors[0]
        if self.others:  # prices paid for different figures bring the same for more or less
            cost = damage[np.arange(len(self.layers)), places].sum(axis=1)
            order = np.lexsort((cost, -reached))
            least = np.minimum.accumulate(cost[order])
            kept = order[cost[order] <= least + 1e-12]
            places, reached = places[kept], reached[kept]
        return places, reached

    def share(self, seed: int, trial: int) -> float:
        """Where on the front trial number `trial` lies, 0 its dense end: evenly, or near the bound if there is one."""
        if self.bounded:  # the first lies where the constraint does, and the others not far from it
            return float(((trial * _GOLDEN) % 1.0) ** 2)
        return (0.5 + seed * 0.1 + trial * _GOLDEN) % 1.0

    def by_curves(self, units: np.ndarray, share: float) -> np.ndarray:
        """A point of the unit cube, its levels by the curves as they were measured; all else stays."""
        places, reached = self.choices(self.damage)
        placed = units.copy()
        placed[self.layers] = places[nearest_to(reached, np.array([self.wanted(reached, share)]))[0]] / (GRID - 1)
        return self.on_the_bound(placed)

    def wanted(self, reached: np.ndarray, share: float | np.ndarray) -> float | np.ndarray:
        """What is to be brought at a share of the way along the front: the density's logarithm is spread evenly."""
        low, high = max(float(reached.min()), self.least), float(reached.max())
        return 1.0 - (1.0 - low) ** (1.0 - share) * max(1.0 - high, 1e-3) ** share

    def gains(self, units: np.ndarray) -> np.ndarray:
        """(n,): what pruning brings in the own figure, 1 for all of every layer by itself."""
        return self.own.of(self.places(units))

    def places(self, units: np.ndarray) -> np.ndarray:
        """(n, layers) of (n, dimensions) in the unit cube."""
        return np.rint(units[:, self.layers] * (GRID - 1)).astype(int)

    def between(self, table: np.ndarray, units: np.ndarray) -> np.ndarray:
        """(n, layers): what a (layers, grid) table has at the levels, (n, dimensions); between places of the grid the
        line that joins them."""
        places = np.clip(units[:, self.layers] * (GRID - 1), 0, GRID - 1)
        below = np.minimum(places.astype(int), GRID - 2)
        way, rows = places - below, np.arange(len(self.layers))
        found: np.ndarray = table[rows, below] * (1 - way) + table[rows, below + 1] * way
        return found

    def keeps(self, units: np.ndarray) -> np.ndarray:
        """(n,): whether every bound is nearly kept, by the sum of what the layers bring."""
        places = self.places(units)
        kept = np.ones(len(units), dtype=bool)
        for one in self.bounded:
            kept &= one.of(places) >= one.least - _NEAR
        return kept

    def on_the_bound(self, units: np.ndarray) -> np.ndarray:
        """A point of the unit cube, all its levels stretched or shrunk alike until every bound is kept, where it breaks
        one or lies near the tightest; what is foreseen says how far."""
        asked = [one for one in self.bounded if one.foreseen is not None]
        if not asked:
            return units

        def stretched(factor: float) -> np.ndarray:
            moved = units.copy()
            moved[self.layers] = np.clip(units[self.layers] * factor, 0.0, 1.0)
            return moved

        def beyond(factor: float) -> float:
            values = self.space.from_unit(stretched(factor))
            kept = [one.share(one.foreseen(values)) - one.least for one in asked if one.foreseen is not None]
            return min((by for by in kept if not math.isnan(by)), default=math.nan)

        off = beyond(1.0)
        if not off <= _NEAR:  # it keeps the bounds by more, or cannot be foreseen
            return units
        low, high = (0.0, 1.0) if off >= 0.0 else (1.0, 1.0 / max(float(units[self.layers].min()), 0.05))
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if beyond(middle) >= 0.0 else (middle, high)
        return stretched(high)


def nearest_to(reached: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(wanted,): which of `reached` is the nearest."""
    found: np.ndarray = np.abs(reached[None] - wanted[:, None]).argmin(axis=1)
    return found


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
