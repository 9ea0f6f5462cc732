"""How much: the sparsity level to reach at an epoch. Pure functions of the policy's timing.

Levels are fractions in [0, 1] of the groups (single weights, filters, ...) of one parameter. A `Curve` of one's own is
named in a schedule as ``pkg.mod:CURVE``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from raydistill.errors import short


@dataclass(frozen=True)
class PolicyTime:
    """Where a policy stands: the epoch now, and its own window (`ending_epoch` is exclusive)."""

    epoch: int
    starting_epoch: int
    ending_epoch: int
    frequency: int

    @property
    def progress(self) -> float:
        """0 at the first scheduled epoch, 1 at the last one; the epochs between are in proportion.

        The span counts whole frequency steps, so that the last *scheduled* epoch is 1 exactly.
        """
        span = (self.ending_epoch - self.starting_epoch - 1) // self.frequency * self.frequency
        if span == 0:  # a single scheduled epoch: nothing is gradual about it
            return 1.0
        return min(1.0, max(0.0, (self.epoch - self.starting_epoch) / span))


Rate = Callable[[PolicyTime], float]


def cubic_level(initial: float, final: float, when: PolicyTime) -> float:
    """Automated gradual pruning: fast at first, slow near the end (Zhu and Gupta 2017, arXiv 1710.01878, eq. 1)."""
    return final + (initial - final) * (1.0 - when.progress) ** 3


def linear_level(initial: float, final: float, when: PolicyTime) -> float:
    """The same step at every scheduled epoch."""
    return initial + (final - initial) * when.progress


def cosine_level(initial: float, final: float, when: PolicyTime) -> float:
    """Half a cosine wave: slow at both ends (as Dettmers and Zettlemoyer 2019, arXiv 1907.04840, anneal their rate)."""
    return final + (initial - final) * (1.0 + math.cos(math.pi * when.progress)) / 2.0


def exponential_level(initial: float, final: float, when: PolicyTime) -> float:
    """The density falls by the same factor at every scheduled epoch: its logarithm falls evenly."""
    return 1.0 - (1.0 - initial) * ((1.0 - final) / (1.0 - initial)) ** when.progress


def constant_level(level: float, when: PolicyTime) -> float:
    """The same level at every scheduled epoch."""
    return level


def cubic(initial: float, final: float) -> Rate:
    return partial(cubic_level, initial, final)


def linear(initial: float, final: float) -> Rate:
    return partial(linear_level, initial, final)


def cosine(initial: float, final: float) -> Rate:
    return partial(cosine_level, initial, final)


def exponential(initial: float, final: float) -> Rate:
    return partial(exponential_level, initial, final)


def constant(level: float) -> Rate:
    return partial(constant_level, level)


def one_shot(initial: float, final: float) -> Rate:
    """The final level at once; `initial` is not used."""
    return constant(final)


@dataclass(frozen=True)
class Curve:
    """A named way from one level to another. rate: (initial, final), both in [0, 1), to the rate between them."""

    name: str
    rate: Callable[[float, float], Rate]

    def fault_between(self, initial: float, final: float) -> str:
        """What keeps a curve of one's own from being used, as four epochs show it; "" if nothing does."""
        for epoch in range(4):
            try:
                level = self.rate(initial, final)(PolicyTime(epoch, 0, 4, 1))
            except Exception as error:
                return f"fails at epoch {epoch} of 4 ({type(error).__name__}: {error})"
            if isinstance(level, bool) or not isinstance(level, float | int) or not 0.0 <= level <= 1.0:
                return f"must give levels in [0, 1], it gives {short(level)} at epoch {epoch} of 4"
        return ""


MENU: dict[str, Curve] = {
    curve.name: curve
    for curve in (
        Curve("cubic", cubic),
        Curve("linear", linear),
        Curve("cosine", cosine),
        Curve("exponential", exponential),
        Curve("one_shot", one_shot),
    )
}
