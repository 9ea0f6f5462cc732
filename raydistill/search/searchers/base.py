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


Allocations = Mapping[str, Sequence[Mapping[str, float]]]
"""By the name of a rule: levels by weight, at totals that rise."""


@dataclass(frozen=True)
class Bound:
    """One on a figure of the network that is not optimised, the larger, the better. least: that it may be. dense,
    sizes, foreseen: of this figure, as in `Aim` and `with_curves`."""

    least: float
    dense: float
    sizes: Mapping[str, float]
    foreseen: Callable[[Mapping[str, Scalar]], float] | None = None


@dataclass(frozen=True)
class Aim:
    """What a sweep's constraints leave of the two figures that are weighed, both the larger, the better.

    metric, figure: the least that they may be. dense: the figure of the network that nothing is pruned of. foreseen: a
    trial's values to the figure that it is bound for; None where that is the sum of what its layers bring. beside:
    bounds on other figures of the network.
    """

    metric: float = -math.inf
    figure: float = -math.inf
    dense: float = 0.0
    foreseen: Callable[[Mapping[str, Scalar]], float] | None = None
    beside: tuple[Bound, ...] = ()


class Searcher(ABC):
    """startup: how many suggestions depend on no result; of one that learns nothing, `ALL`. They are known, and
    checked, before a sweep starts.

    One's own is named in a sweep file as ``pkg.mod:Class`` and made as ``Class(space, seed, **args)``.
    """

    startup: int = 0
    wants_curves: bool = False
    """Whether each layer's damage is measured before the first trial, for `with_curves`."""
    takes_curves: bool = False
    """Whether it is told them too where there are such, and does without them elsewhere."""
    wants_allocations: bool = False
    """Whether allocations by rule are wanted too, for `with_allocations`."""
    keeps_bounds: bool = False
    """Whether it holds its own model against constraints; else what breaks one is told to it as worse than it is."""
    bounds_beside: bool = False
    """Whether it does so too with those on figures of the network that are not optimised."""
    size: int = ALL
    """How many trials it has at most."""
    pool: int = 0
    """How many `candidates` are judged without training before the first trial, for `with_evidence`."""
    wants_bound: bool = False
    """Whether it cannot do without a constraint on the figure of the network that is optimised."""
    how: str = ""
    """How values are found, in words, where that is not said by how many of them are known."""

    def with_curves(self, curves: Curves, sizes: Mapping[str, float], aim: Aim) -> Searcher:
        """The same searcher, told the layers' curves. sizes: by weight, what a level of 1 brings in the figure of the
        network that is optimised, in its unit: a share of the weights, multiply-accumulates."""
        del curves, sizes, aim
        return self

    def with_allocations(self, allocations: Allocations) -> Searcher:
        """The same searcher, told what rules say of the layers' levels."""
        del allocations
        return self

    def candidates(self) -> list[Mapping[str, Scalar]]:
        """The values of which it wants evidence, once the curves are told."""
        return []

    def with_evidence(self, losses: Sequence[float]) -> Searcher:
        """The same searcher, told what its candidates lose that are pruned at once."""
        del losses
        return self

    def origin(self, trial: int) -> str:
        """Where the values of trial number `trial` are from, in words, if not from the method itself."""
        del trial
        return ""

    @abstractmethod
    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar] | None:
        """The values of trial number `trial`; None when there is nothing left to try.

        seen: the trials before it. stages: the epochs at which trials are compared: rungs, and the last epoch.
        """


def generator(seed: int, trial: int) -> np.random.Generator:
    """A stream for each trial: it depends on (seed, trial) alone, so a resumed sweep draws the same."""
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(trial,)))
