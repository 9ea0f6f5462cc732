"""A part of a run as a newcomer would write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from raydistill.parts import Role, Setting
from raydistill.parts.kinds import NUMBER, Count
from raydistill.parts.setting import HASH, IDENTITY
from raydistill.training import RunConfig


def _span(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("-"))


@dataclass(frozen=True, kw_only=True)
class Averaging:
    decay: Annotated[float, NUMBER, Ge(0), Lt(1), Setting("Of the mean.", ("--dk",))] = 0.99
    start_step: Annotated[Count, Setting("The first step.", option="from-step", younger=(IDENTITY, HASH))] = 1
    kind: Annotated[Literal["plain", "biased"], Setting("Which mean.", role=Role.MAY_CHANGE)] = "plain"
    folder: Annotated[str | None, Setting("Where means are kept.", path=True, role=Role.FREE)] = None
    span: Annotated[tuple[int, ...], Setting("As 1-3.", metavar="A-B", read=_span)] = ()
    averaged: Annotated[bool, Setting("Whether.", ("--avg",))] = False
    hidden: Annotated[int, Setting(option=None, role=Role.FREE)] = 5


@dataclass(frozen=True)
class Run(RunConfig, Averaging):
    pass
