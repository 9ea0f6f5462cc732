"""A number means the same to a sweep file, which pydantic reads, and to a run that Python or the command line made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from raydistill.parts import Setting, out_of_bounds
from raydistill.parts.kinds import Count, Fraction, NotNegative, Number, Own, Positive, Whole


@dataclass(frozen=True, kw_only=True)
class Numbers:
    count: Annotated[Count, Setting()] = 1
    whole: Annotated[Whole, Setting()] = 0
    fraction: Annotated[Fraction, Setting()] = 0.5
    positive: Annotated[Positive, Setting()] = 1.0
    not_negative: Annotated[NotNegative, Setting()] = 0.0


class Section(BaseModel, Numbers):  # type: ignore[misc]
    model_config = ConfigDict(extra="forbid", frozen=True)


def in_a_file(name: str, value: Any) -> bool:
    try:
        Section(**{name: value})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("count", [1, 7], [0, -1, 1.5, True]),
        ("whole", [0, 7], [-1, 0.5, False]),
        ("fraction", [1e-9, 0.5, 0.999], [0, 1, 0.0, 1.0, -0.1, 2, True]),
        ("positive", [1e-9, 3, 1e30], [0, 0.0, -1, math.inf, math.nan, 1e39, True]),
        ("not_negative", [0, 0.0, 3], [-1e-9, math.inf, math.nan, False]),
    ],
)
def test_both_take_the_same_and_refuse_the_same(name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert in_a_file(name, value), value
        assert out_of_bounds(Numbers(**{name: value}), "") == []
    for value in bad:
        assert [fault.where for fault in out_of_bounds(Numbers(**{name: value}), "")] == [name], value
        infinite = isinstance(value, float) and not math.isfinite(value)
        assert not in_a_file(name, value) or (value == 1e39 and not infinite), value  # a file's float has 64 bits


class Others(BaseModel):
    number: Number = 0.0
    own: Own = "a:b"


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ({"number": -3}, True),
        ({"number": math.inf}, False),
        ({"number": True}, False),
        ({"number": "3"}, True),  # YAML reads 1e-3 as text
        ({"own": "mine.here:NET"}, True),
        ({"own": "mine"}, False),
        ({"own": "a:b:c"}, False),
        ({"own": ":b"}, False),
    ],
)
def test_numbers_and_names_of_ones_own(said: dict[str, Any], right: bool) -> None:
    if right:
        assert Others(**said).model_dump() == {
            **Others().model_dump(),
            **{k: float(v) if k == "number" else v for k, v in said.items()},
        }
    else:
        with pytest.raises(ValidationError):
            Others(**said)
