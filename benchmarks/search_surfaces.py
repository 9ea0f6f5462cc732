"""Made-up networks to search: what trials of them would show, what they are truly worth, and what could be had at best.

A surface is one kind of network, drawn anew for each seed: so many layers with sizes over three decades and damages
over two, every sparsity from 0 to 0.99. `weighed` says the final damage of a batch of networks, all else is made of
that: the figures of a trial epoch by epoch with the noise of a validation set, its true top1 without it, and the front
that no search can pass. Damages are scaled so that a trial drawn at random loses 4.5 points of top1 on average.

Surfaces that methods may be tuned on and those that are kept out of it (`HELD_OUT`) differ in kind, in size and in what
is drawn.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from raydistill.compression.allocation import erk, uniform
from raydistill.records import Scalar
from raydistill.search import Choice, Dimension, LogUniform, SearchSpace, Uniform, hypervolume

Curve = Generator[dict[str, float], None, None]
"""The figures of one epoch after another."""

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""By weight: (level, what top1 loses when this layer alone is pruned to it, without retraining)."""

LARGEST = 0.99
POINTS = {"5 points": 0.05, "3 points": 0.03}
"""The references of the hypervolume: the dense network's top1 less so much, at sparsity 0."""


class Space(SearchSpace):
    """Remembers where in the unit cube a trial lies: searchers that learn ask that of every trial for every other."""

    def to_unit(self, values: Mapping[str, Scalar]) -> np.ndarray:
        known: dict[tuple[Scalar, ...], np.ndarray] = self.__dict__.setdefault("_known", {})
        key = tuple(values.values())
        if key not in known:
            known[key] = super().to_unit(values)
        return known[key]


class Surface:
    """Damage that adds up over the layers. layers: how many. seed: of all that is drawn.

    epochs: of a trial, which prunes until `pruned` of them. dense: top1 of the network that trials start from.
    evaluation: what one pass over the validation set costs, in epochs. noise: standard deviations, of all of a trial's
    figures together and of each by itself.
    """

    epochs, pruned, dense, evaluation, noise = 40, 30, 0.75, 0.04, (0.003, 0.002)
    additive = True
    _CHANCE, _FORGETS, _LOSES = 0.10, 0.75, 0.045

    def __init__(self, layers: int, seed: int) -> None:
        self.layers, self.seed = layers, seed
        self.names = [f"layer{i}.weight" for i in range(layers)]
        kind = int.from_bytes(hashlib.sha256(type(self).__name__.encode()).digest()[:4], "little")
        self.rng = rng = np.random.default_rng([kind, layers, seed])
        self.sizes = np.round(10 ** rng.uniform(3.0, 6.0, layers))
        self.share = self.sizes / self.sizes.sum()
        self.amount = rng.lognormal(0.0, 1.0, layers)
        self.power = np.exp(rng.uniform(math.log(1.5), math.log(10.0), layers))
        self.shock = rng.uniform(0.5, 3.0, layers)  # of a step of pruning, by what is lost for good
        self.one_shot = np.full(layers, 3.0), np.full(layers, 1.0)  # a layer's damage before retraining: factor, shape
        self.draw()
        drawn = rng.uniform(0.0, LARGEST, (4000, layers))
        self.amount *= self._LOSES / self.weighed(drawn).mean()
        self.space = Space(tuple(self.dimensions()))
        self.weights = dict(zip(self.names, self.sizes, strict=True))
        self._trials: dict[tuple[Scalar, ...], tuple[list[dict[str, float]], np.ndarray]] = {}

    def draw(self) -> None:
        """What a kind has beyond damages of its layers."""

    def dimensions(self) -> list[Dimension]:
        argument, levels = "final_sparsity", Uniform(0.0, LARGEST)
        return [Dimension(f"per_layer.{name}.{argument}", levels, name, argument) for name in self.names]

    def levels(self, units: np.ndarray) -> np.ndarray:
        """(n, layers) of (n, dimensions) in the unit cube."""
        return units[:, : self.layers] * LARGEST

    def each(self, levels: np.ndarray) -> np.ndarray:
        """(n, layers): what each layer loses for good, itself alone; beyond 90 % it starves."""
        return self.amount * (levels**self.power + 0.3 * np.maximum(0.0, np.log10(0.1 / (1.0 - levels))))

    def weighed(self, levels: np.ndarray) -> np.ndarray:
        """(n,) of (n, layers): what all of them lose together."""
        return self.each(levels).sum(axis=1)

    def untuned(self, units: np.ndarray, progress: float | np.ndarray = 1.0) -> np.ndarray:
        """(n,): what is lost to anything else that is searched, so far into a trial: 1 is its end."""
        return np.zeros(len(units))

    def loss(self, units: np.ndarray) -> np.ndarray:
        """(n,): all that is lost; the smaller, the better top1."""
        return self.weighed(self.levels(units)) + self.untuned(units)

    def top1(self, damage: np.ndarray) -> np.ndarray:
        span = self.dense - self._CHANCE
        return self.dense - span * (1.0 - np.exp(-damage / span))

    def true(self, units: np.ndarray) -> np.ndarray:
        """(n, 2): top1 without noise and sparsity."""
        return np.stack([self.top1(self.loss(units)), self.levels(units) @ self.share], axis=1)

    def trial(self, seed: int, values: Mapping[str, Scalar]) -> tuple[list[dict[str, float]], np.ndarray]:
        """The figures of every epoch, and (true top1, sparsity) of the network that is delivered.

        While layers are pruned top1 is lower than it will be, by what each step shocked it, which it forgets by and by;
        the learning rate, still high, costs up to three points more.
        """
        unit = self.space.to_unit(values)[None]
        final = self.levels(unit)[0]
        progress = np.minimum(1.0, np.arange(self.epochs + 1) / self.pruned)
        now = final * (1.0 - (1.0 - progress[:, None]) ** 3)
        each, damage = self.each(now), self.weighed(now)
        steps = np.diff(each, axis=0) @ self.shock
        age = np.subtract.outer(np.arange(self.epochs), np.arange(self.epochs))
        shocked = np.where(age >= 0, self._FORGETS ** np.maximum(age, 0), 0.0) @ steps
        along = np.arange(1, self.epochs + 1) / self.epochs
        untuned = np.array([self.untuned(unit, share)[0] for share in along])
        clean = self.top1(damage[1:] + shocked + untuned) - 0.03 * (1.0 - along)
        key = hashlib.sha256(f"{seed}{sorted(values.items())}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
        seen = clean + rng.normal(0.0, self.noise[0]) + rng.normal(0.0, self.noise[1], self.epochs)
        sparsity, planned = now[1:] @ self.share, float(final @ self.share)
        figures = [
            {"top1": top1, "sparsity": zeros, "planned_sparsity": planned}
            for top1, zeros in zip(seen.tolist(), sparsity.tolist(), strict=True)
        ]
        return figures, np.array([clean[-1], planned])

    def train(self, seed: int, values: Mapping[str, Scalar], known: int) -> Curve:
        """The figures of the epochs after those that are known."""
        figures, _ = self._remembered(seed, values)
        yield from figures[known:]

    def delivered(self, seed: int, values: Mapping[str, Scalar]) -> np.ndarray:
        """(true top1, sparsity) of a trial that finished."""
        return self._remembered(seed, values)[1]

    def _remembered(self, seed: int, values: Mapping[str, Scalar]) -> tuple[list[dict[str, float]], np.ndarray]:
        key = (seed, *values.values())
        if key not in self._trials:
            self._trials[key] = self.trial(seed, values)
        return self._trials[key]

    def forget(self) -> None:
        """Drop the trials that are remembered: another search draws others."""
        self._trials.clear()

    def damage_curve(self, layer: int, level: float) -> float:
        """What top1 truly loses when the layer alone is pruned in one shot."""
        factor, shape = (part[layer] for part in self.one_shot)
        starved = 0.3 * max(0.0, math.log10(0.1 / (1.0 - level)))
        return self.dense - float(
            self.top1(factor * self.amount[layer] * (level ** (self.power[layer] * shape) + starved))
        )

    def measured(self, levels: Sequence[float], seed: int) -> tuple[Curves, float]:
        """Every layer's curve as one would measure it, and the epochs that it cost. The same images judge all, so that
        the noise of a difference is smaller than that of a figure."""
        rng = np.random.default_rng([seed, self.layers, 1])
        curves = {
            name: [(level, self.damage_curve(i, level) + float(rng.normal(0.0, 0.001))) for level in levels]
            for i, name in enumerate(self.names)
        }
        return curves, self.evaluation * (1 + len(levels) * self.layers)

    def by_rules(self) -> dict[str, list[dict[str, float]]]:
        """Levels by rules that need no more than the layers' sizes: of square matrices, as large as the layers."""
        shapes = {name: (math.isqrt(int(size)),) * 2 for name, size in self.weights.items()}
        return {"erk": erk(shapes), "uniform": uniform(shapes)}

    def optimum(self) -> np.ndarray:
        """(n, 2): points of the front that no search can pass.

        Each price of a weight's zero has its own best network. Where damage adds up, that is each layer's best level by
        itself: Lagrange's multiplier, exact but for the grid and the front's dents. Elsewhere one value after another
        is moved to its best until none moves: the best that is found, not proved to be.
        """
        prices = np.geomspace(1e-4, 3.0, 240 if self.additive else 48)
        if self.additive:
            grid = np.linspace(0.0, 1.0, 500)
            losses = self.each(np.repeat(grid[:, None] * LARGEST, self.layers, axis=1))
            gains = prices[:, None, None] * (grid[:, None] * LARGEST) * self.share - losses
            return self._between(grid[gains.argmax(axis=1)])
        size = len(self.space)
        grids = [np.linspace(0.0, 1.0, 60)] * self.layers + [np.linspace(0.02, 0.98, 25)] * (size - self.layers)
        best = np.repeat(np.full((1, size), 0.5), len(prices), axis=0)
        for _ in range(6):
            before = best.copy()
            for i, grid in enumerate(grids):
                tried = np.repeat(best[:, None], len(grid), axis=1)
                tried[:, :, i] = grid
                flat = tried.reshape(-1, size)
                worth = np.repeat(prices, len(grid)) * (self.levels(flat) @ self.share) - self.loss(flat)
                worth = worth.reshape(len(prices), len(grid))
                best[:, i] = grid[worth.argmax(axis=1)]
            if np.array_equal(before, best):
                break
        return self._between(best)

    def _between(self, units: np.ndarray) -> np.ndarray:
        """The networks, and eight on the way from each to the next: the front is no staircase."""
        ways = np.linspace(0.0, 1.0, 9)[:, None, None]
        return self.true((units[:-1] * (1.0 - ways) + units[1:] * ways).reshape(-1, units.shape[1]))

    def possible(self) -> dict[str, float]:
        """The hypervolume of the optimum, by the reference."""
        best = self.optimum()
        return {name: volume(best, self.dense, points) for name, points in POINTS.items()}


class Interacting(Surface):
    """Layers that follow each other, and some pairs across, hurt more when both are pruned, some less."""

    additive = False

    def draw(self) -> None:
        first = np.arange(self.layers - 1)
        across = np.sort(self.rng.choice(self.layers, (self.layers // 2, 2)), axis=1)
        across = across[across[:, 0] < across[:, 1]]
        self.pairs = np.concatenate([np.stack([first, first + 1], axis=1), across])
        self.strength = self.rng.uniform(-0.5, 2.0, len(self.pairs))

    def weighed(self, levels: np.ndarray) -> np.ndarray:
        one, other = self.pairs.T
        both = np.sqrt(self.amount[one] * self.amount[other]) * self.strength * (levels[:, one] * levels[:, other]) ** 2
        alone = self.each(levels).sum(axis=1)
        return np.maximum(0.3 * alone, alone + both.sum(axis=1))


class Misled(Surface):
    """Retraining undoes more of one layer's damage than of another's: one-shot curves are wrong by a factor for each
    layer, 0.3 to 3, and in their shape."""

    def draw(self) -> None:
        factor = np.exp(self.rng.uniform(math.log(0.3), math.log(3.0), self.layers))
        shape = np.exp(self.rng.uniform(math.log(0.5), math.log(2.0), self.layers))
        self.one_shot = 3.0 * factor, shape


class Rates(Surface):
    """The learning rate and AGP's frequency are searched beside the levels; what is pruned more wants a higher rate."""

    additive = False

    def dimensions(self) -> list[Dimension]:
        rate = Dimension("training.lr", LogUniform(0.001, 0.1))
        return [*super().dimensions(), rate, Dimension("policies.agp.frequency", Choice((1, 2, 3, 4)))]

    def untuned(self, units: np.ndarray, progress: float | np.ndarray = 1.0) -> np.ndarray:
        rate, frequency = units[:, self.layers], np.floor(units[:, self.layers + 1] * 4)
        right = 0.35 + 0.4 * (self.levels(units) @ self.share)
        return 0.12 * (rate - right) ** 2 + 0.0015 * frequency + 0.02 * rate * (1.0 - progress)


KINDS: dict[str, type[Surface]] = {
    "additive": Surface,
    "interacting": Interacting,
    "misled": Misled,
    "rates": Rates,
}
SURFACES = ("additive5", "additive21", "additive53", "interacting21", "interacting53", "misled21", "misled53", "rates5",
            "rates21")  # fmt: skip
"""A kind and its number of layers."""

HELD_OUT = frozenset({"additive53", "interacting53", "misled53", "rates21", "real"})
"""Kept out of tuning: a method's numbers and a default are chosen on the others, these say whether that holds."""


def volume(points: Any, dense: float, below: float) -> float:
    """The hypervolume of (top1, sparsity), over a dense network's top1 less `below` and no sparsity."""
    return hypervolume(np.reshape(points, (-1, 2)), ["max", "max"], (dense - below, 0.0))


def make_surface(name: str, seed: int) -> Surface:
    kind = name.rstrip("0123456789")
    return KINDS[kind](int(name.removeprefix(kind)), seed)
