"""Values that were not drawn: of the right type for a distribution, its middle, its nearest; and picks from a front."""

from __future__ import annotations

import math
from collections.abc import Sequence

from raydistill.records import Scalar
from raydistill.search.distributions import Choice, Distribution, LogUniform, QUniform, RandInt, Uniform


def typed(distribution: Distribution, value: object) -> Scalar | None:
    """`value` as the distribution would have drawn it (1 as 1.0 where it draws floats); None if it never would."""
    if not distribution.contains(value):
        return None
    if isinstance(distribution, Choice):
        return next(o for o in distribution.options if isinstance(o, bool) == isinstance(value, bool) and o == value)
    if isinstance(distribution, QUniform):
        return distribution.value(round(float(value) / distribution.q))  # type: ignore[arg-type]
    return value if isinstance(distribution, RandInt) else float(value)  # type: ignore[arg-type, return-value]


def middle(distribution: Distribution) -> Scalar:
    """The middle of its values: of the logarithms for loguniform, the upper one of two, a choice's in their order."""
    return distribution.from_unit(0.5)


def nearest(distribution: Distribution, value: Scalar) -> Scalar | None:
    """The value nearest to `value` that the distribution can draw; None for a word that is not among its options."""
    if isinstance(distribution, Choice):
        if distribution.contains(value):
            return typed(distribution, value)
        numbers = [option for option in distribution.options if _is_number(option)]
        if not numbers or not _is_number(value):
            return None
        return min(numbers, key=lambda option: abs(option - value))  # type: ignore[operator]
    if not _is_number(value):
        return None
    number = float(value)
    if isinstance(distribution, RandInt):
        return min(max(round(number), distribution.low), distribution.high - 1)
    if isinstance(distribution, QUniform):
        first, last = distribution.steps
        return distribution.value(min(max(round(number / distribution.q), first), last))
    return min(max(number, float(distribution.low)), float(distribution.high))


def from_text(distribution: Distribution, text: str) -> Scalar | None:
    """A value that was written as text (``str(value)``, as MLflow's params are), as what the distribution draws.

    It may lie outside the bounds. None for text that is no value of this kind: a word where numbers are drawn.
    """
    if isinstance(distribution, Choice):
        for option in distribution.options:
            if str(option) == text:
                return option
        if text in ("True", "False") or not any(_is_number(option) for option in distribution.options):
            return None
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and not isinstance(distribution, Uniform | LogUniform) else number


def spread(ranks: Sequence[int], positions: Sequence[float], count: int) -> list[int]:
    """Indices of at most `count` members: better ranks first, and of a rank that is too many evenly along it.

    ranks: (n,) Pareto ranks, 0 the front; negative ones are never taken. positions: (n,) where along its rank a member
    lies, its sparsity say. Of a rank's members, in the order of their positions, the first, the last and those in even
    steps between are taken; if one only, the middle one. In the order of ranks, then positions.
    """
    taken: list[int] = []
    for rank in sorted({rank for rank in ranks if rank >= 0}):
        members = sorted((i for i, other in enumerate(ranks) if other == rank), key=lambda i: (positions[i], i))
        room = count - len(taken)
        if room <= 0:
            break
        if len(members) <= room:
            taken += members
        elif room == 1:
            taken.append(members[len(members) // 2])
        else:
            taken += [members[round(step * (len(members) - 1) / (room - 1))] for step in range(room)]
    return taken


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
