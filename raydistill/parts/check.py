"""The bounds of a part's fields, kept where no file was read: what Python or the command line gave."""

from __future__ import annotations

from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from raydistill.errors import Fault
from raydistill.parts.kinds import FINITE, LARGEST
from raydistill.parts.setting import Described, settings


def out_of_bounds(values: object, prefix: str) -> list[Fault]:
    """What is wrong with the fields of an instance of a part. prefix: of their names, as ``training.``."""
    faults = []
    for field in settings(type(values)):
        value = getattr(values, field.name)
        kinds = get_args(field.kind) or (field.kind,)
        if value is None and NoneType in kinds:
            continue
        where = f"{prefix}{field.name}"
        if get_origin(field.kind) is Literal:
            if value not in kinds:
                way_out = f"use {', '.join(kinds[:-1])} or {kinds[-1]}"
                faults.append(Fault(where, "is not known", value, way_out))
        elif rule := _rule(field, value, int if int in kinds else float):
            faults.append(Fault(where, rule, value))
    return faults


def _below(value: Any, high: float | None, most: float | None) -> bool:
    """Below `high`, and no more than `most`; None bounds nothing."""
    return (high is None or value < high) and (most is None or value <= most)


def _rule(field: Described, value: object, kind: type) -> str:
    """What `value` breaks, "" where it is good or has no bounds."""
    lows = [bound for bound in field.said if isinstance(bound, Ge | Gt)]
    highs: list[Any] = [bound.lt for bound in field.said if isinstance(bound, Lt)]
    most: Any = next((bound.le for bound in field.said if isinstance(bound, Le)), None)
    if FINITE in field.said:
        highs.append(LARGEST)
    if not lows:
        return ""
    low: Any = lows[0].ge if isinstance(lows[0], Ge) else lows[0].gt
    high = min(highs, default=None)
    number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    open_ = isinstance(lows[0], Gt) and not field.setting.excluded_too
    if number and (low < value if open_ else low <= value) and _below(value, high, most):
        return ""
    if kind is int:
        return f"must be a whole number from {low} up"
    first = f"above {low:g}" if open_ else f"from {low:g}"
    if most is not None:
        return f"must be a number {first} {'and ' if open_ else ''}up to {most:g}"
    if high is None or high == LARGEST:
        rule = f"must be a number {first}" + ("" if open_ else " up")
        return rule + (f", below {high:g}" if number and high is not None and value >= high else "")
    return f"must be a number {first} {'and' if open_ else 'to'} below {high:g}"
