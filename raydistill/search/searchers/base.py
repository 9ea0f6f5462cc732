"""What every searcher is, and the seeds of its suggestions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raydistill.records import Scalar
from raydistill.search.observations import Observation

ALL = 2**31

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""By weight: (level, what the metric loses when this layer alone is pruned to it); the smaller, the better."""


@dataclass(frozen=True)
class Aim:
    """What a sweep's constraints leave of the two figures that are weighed, both the larger, the better.

    metric, figure: the least that they may be. dense: the figure of the network that nothing is pruned of. foreseen: a
    trial's values to the figure that it is bound for; None where that is the sum of what its layers bring.
    """

    metric: float = -math.inf
    figure: float = -math.inf
    dense: float = 0.0
    foreseen: Callable[[Mapping[str, Scalar]], float] | None = None


class Searcher(ABC):
    """startup: how many suggestions depend on no result; of one that learns nothing, `ALL`. They are known, and
    checked, before a sweep starts.

    One's own is named in a sweep file as ``pkg.mod:Class`` and made as ``Class(space, seed, **args)``.
    """

    startup: int = 0
    wants_curves: bool = False
    """Whether each layer's damage is measured before the first trial, for `with_curves`."""
    wants_bound: bool = False
    """Whether it cannot do without a constraint on the figure of the network that is optimised."""
    how: str = ""
    """How values are found, in words, where that is not said by how many of them are known."""

    def with_curves(self, curves: Curves, sizes: Mapping[str, float], aim: Aim) -> Searcher:
        """The same searcher, told the layers' curves. sizes: by weight, what a level of 1 brings in the figure of the
        network that is optimised, in its unit: a share of the weights, multiply-accumulates."""
        del curves, sizes, aim
        return self

    @abstractmethod
    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar] | None:
        """The values of trial number `trial`; None when there is nothing left to try.

        seen: the trials before it. stages: the epochs at which trials are compared: rungs, and the last epoch.
        """


def generator(seed: int, trial: int) -> np.random.Generator:
    """A stream for each trial: it depends on (seed, trial) alone, so a resumed sweep draws the same."""
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(trial,)))
