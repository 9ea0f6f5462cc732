"""pydantic's complaints in a file's own words: key path, rule, value, way out; one for each thing that is wrong."""

from __future__ import annotations

from dataclasses import make_dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from raydistill.parts.kinds import Count, Fraction, Positive
from raydistill.sweep.file.faults import section_of, validate
from raydistill.sweep.file.spec import ResourcesSection


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Inner(Strict):
    rate: Positive = 1.0
    kind: Literal["plain", "biased"] = "plain"


Plain = make_dataclass(  # its annotations are no strings: see `raydistill.parts.optimizer`
    "Plain",
    [("width", Count, 1), ("either", Count | Literal["all"], "all")],
    namespace={"__pydantic_config__": {"extra": "forbid"}},
)
"""Stands for a section."""


class Outer(Strict):
    name: str
    count: Count = 1
    share: Fraction = 0.5
    most: Annotated[int, Field(le=8)] = 3
    flag: bool = False
    memory: bool | Literal["auto"] = "auto"
    inner: Inner | None = None
    several: list[Inner] = []
    size: tuple[Count, Count] | None = None
    values: dict[str, float] = {}
    plain: Plain = Plain()  # type: ignore[valid-type]
    named: dict[str, Inner] = {}
    maybe: Plain | None = None  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _count_and_most(self) -> Outer:
        if self.count > self.most:
            raise ValueError("Count must not be above most")
        return self


@pytest.mark.parametrize(
    ("changed", "lines"),
    [
        ({}, []),
        ({"name": ...}, ["f.yaml: s.name: is missing; add 'name:'"]),
        ({"name": 3}, ["f.yaml: s.name: must be text, got 3"]),
        ({"cuont": 3}, ["f.yaml: s.cuont: unknown key; did you mean 'count'?"]),
        ({"count": "three"}, ["f.yaml: s.count: must be a whole number, got 'three'"]),
        ({"count": 1.5}, ["f.yaml: s.count: must be a whole number, got 1.5"]),
        ({"count": 0}, ["f.yaml: s.count: must be at least 1, got 0"]),
        ({"share": 1}, ["f.yaml: s.share: must be below 1, got 1"]),
        ({"most": 9}, ["f.yaml: s.most: must be at most 8, got 9"]),
        ({"flag": "perhaps"}, ["f.yaml: s.flag: must be true or false, got 'perhaps'"]),
        ({"memory": "some"}, ["f.yaml: s.memory: must be true, false or auto, got 'some'"]),
        ({"inner": {"rate": 0}}, ["f.yaml: s.inner.rate: must be above 0, got 0"]),
        ({"inner": {"rat": 1}}, ["f.yaml: s.inner.rat: unknown key; did you mean 'rate'?"]),
        ({"inner": 7}, ["f.yaml: s.inner: must be a mapping, got 7"]),
        (
            {"several": [{}, {"kind": "biassed"}]},
            ["f.yaml: s.several[1].kind: must be one of plain, biased, got 'biassed'; did you mean 'biased'?"],
        ),
        ({"size": [3]}, ["f.yaml: s.size[1]: is missing; the list is too short"]),
        ({"values": {"a": "x"}}, ["f.yaml: s.values.a: must be a number, got 'x'"]),
        ({"count": 5}, ["f.yaml: s: count must not be above most"]),
        ({"plain": {"width": 0}}, ["f.yaml: s.plain.width: must be at least 1, got 0"]),
        ({"plain": {"wdth": 1}}, ["f.yaml: s.plain.wdth: unknown key; did you mean 'width'?"]),
        ({"plain": {"either": "some"}}, ["f.yaml: s.plain.either: must be a whole number or all, got 'some'"]),
        ({"maybe": {"either": "some"}}, ["f.yaml: s.maybe.either: must be a whole number or all, got 'some'"]),
        ({"named": {"a": {"rate": 0}}}, ["f.yaml: s.named.a.rate: must be above 0, got 0"]),
        ({"named": {"a": {"rat": 1}}}, ["f.yaml: s.named.a.rat: unknown key; did you mean 'rate'?"]),
        ({"count": {"a": 1}}, ["f.yaml: s.count: must be a whole number, got {'a': 1}"]),
        ({"most": 8.5}, ["f.yaml: s.most: must be a whole number, got 8.5"]),
    ],
)
def test_each_is_one_line_by_its_key(changed: dict[str, Any], lines: list[str]) -> None:
    said = {key: value for key, value in {"name": "x", **changed}.items() if value is not ...}
    found, faults = validate(Outer, said, "f.yaml", "s")
    assert [str(fault) for fault in faults] == lines
    assert (found is None) is bool(lines)


def test_trials_that_are_packed_are_a_number_or_left_to_the_tool() -> None:
    for wrong in ("some", 1.5):
        (fault,) = validate(ResourcesSection, {"pack": wrong}, "f.yaml")[1]
        assert str(fault) == f"f.yaml: pack: must be a whole number or auto, got {wrong!r}"


def test_all_that_is_wrong_is_said_at_once_and_nothing_twice() -> None:
    said = {"count": "x", "share": 2, "memory": 3, "inner": {"rate": -1, "kind": 5}, "odd": 1}
    _, faults = validate(Outer, said, "f.yaml")
    wrong = ["name", "count", "share", "memory", "inner.rate", "inner.kind", "odd"]
    assert sorted(fault.where for fault in faults) == sorted(f"f.yaml: {key}" for key in wrong)


def test_the_section_that_a_key_holds() -> None:
    assert section_of(Inner) is Inner
    assert section_of(Inner | None) is Inner
    assert section_of(list[Inner]) is Inner
    assert section_of(int | None) is None
