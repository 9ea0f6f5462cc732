"""Kinds of numbers that a field may have, with their bounds; read by pydantic and by `parts.check` alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # pydantic would read true as 1
    return value


class _Number(GroupedMetadata):
    """What pydantic must be told of a number; it is not imported before it asks."""

    def __iter__(self) -> Iterator[object]:
        from pydantic import BeforeValidator

        yield BeforeValidator(_no_bool)


class _Finite(GroupedMetadata):
    def __iter__(self) -> Iterator[object]:
        from pydantic import AllowInfNan

        yield AllowInfNan(False)


class _OwnName(GroupedMetadata):
    def __iter__(self) -> Iterator[object]:
        from pydantic import StringConstraints

        yield StringConstraints(pattern=r"^[^:]+:[^:]+$")


NUMBER = _Number()
"""A number is not true or false."""
FINITE = _Finite()
"""Neither infinite nor NaN, and within what 32 bits hold."""
LARGEST = (2 - 2**-23) * 2.0**127
"""Of 32 bits."""

Count = Annotated[int, NUMBER, Ge(1)]
Whole = Annotated[int, NUMBER, Ge(0)]
Number = Annotated[float, NUMBER, FINITE]
Fraction = Annotated[float, NUMBER, Gt(0), Lt(1)]
Share = Annotated[float, NUMBER, Gt(0), Le(1)]
Positive = Annotated[float, NUMBER, Gt(0), FINITE]
NotNegative = Annotated[float, NUMBER, Ge(0), FINITE]
Own = Annotated[str, _OwnName()]
"""``pkg.mod:name``."""
