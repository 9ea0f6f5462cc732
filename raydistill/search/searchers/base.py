"""What every searcher is, and the seeds of its suggestions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from raydistill.records import Scalar
from raydistill.search.observations import Observation

ALL = 2**31

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""By weight: (level, what the metric loses when this layer alone is pruned to it); the smaller, the better."""


class Searcher(ABC):
    """startup: how many suggestions depend on no result; of one that learns nothing, `ALL`. They are known, and
    checked, before a sweep starts.

    One's own is named in a sweep file as ``pkg.mod:Class`` and made as ``Class(space, seed, **args)``.
    """

    startup: int = 0
    wants_curves: bool = False
    """Whether each layer's damage is measured before the first trial, for `with_curves`."""

    def with_curves(self, curves: Curves, sizes: Mapping[str, float]) -> Searcher:
        """The same searcher, told the layers' curves. sizes: by weight, what a level of 1 brings in the figure of the
        network that is optimised: its number of weights, or of multiply-accumulates."""
        del curves, sizes
        return self

    @abstractmethod
    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar] | None:
        """The values of trial number `trial`; None when there is nothing left to try.

        seen: the trials before it. stages: the epochs at which trials are compared: rungs, and the last epoch.
        """


def generator(seed: int, trial: int) -> np.random.Generator:
    """A stream for each trial: it depends on (seed, trial) alone, so a resumed sweep draws the same."""
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(trial,)))
