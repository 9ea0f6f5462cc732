"""Grid search: every combination once, in an order shuffled by the seed, so that a part of the grid spans all of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from raydistill.records import Scalar
from raydistill.search.distributions import Choice, Distribution, QUniform, RandInt
from raydistill.search.observations import Observation
from raydistill.search.searchers.base import ALL, Searcher
from raydistill.search.space import SearchSpace

_MANY = 10**6


class GridSearcher(Searcher):
    """points: values a continuous dimension takes, its ends among them; of whole ones and choices at most that many.

    Every option of a choice is taken, however many.
    """

    startup = ALL

    def __init__(self, space: SearchSpace, seed: int, points: int = 3) -> None:
        self._axes = [(d.path, _values(d.distribution, points)) for d in space.dimensions]
        self.size = 1
        for _, values in self._axes:
            self.size *= len(values)
        self._seed = seed

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar] | None:
        if trial >= self.size:
            return None
        cell = _shuffled(trial, self.size, self._seed)
        chosen: dict[str, Scalar] = {}
        for path, values in reversed(self._axes):
            cell, place = divmod(cell, len(values))
            chosen[path] = values[place]
        return dict(reversed(chosen.items()))


def _values(distribution: Distribution, points: int) -> list[Scalar]:
    if isinstance(distribution, Choice):
        return list(distribution.options)
    if isinstance(distribution, QUniform | RandInt):
        low, high = (
            distribution.steps if isinstance(distribution, QUniform) else (distribution.low, distribution.high - 1)
        )
        count = high - low + 1
        if count <= points:
            return [distribution.from_unit((i + 0.5) / count) for i in range(count)]
    if points == 1:
        return [distribution.from_unit(0.5)]
    return [distribution.from_unit(i / (points - 1)) for i in range(points)]


def _shuffled(trial: int, size: int, seed: int) -> int:
    """Cell number `trial` of a permutation of the grid."""
    if size <= _MANY:
        return int(_permutation(size, seed)[trial])
    # too many to list, perhaps more than 64 bits count: steps through the grid without meeting itself
    start, step = (int.from_bytes(np.random.default_rng([seed, i]).bytes(size.bit_length()), "big") for i in (0, 1))
    step = size // 3 + step % (size // 6)
    while math.gcd(step, size) != 1:
        step += 1
    return (start + trial * step) % size


@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(size)
