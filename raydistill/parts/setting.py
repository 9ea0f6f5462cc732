"""What is said of a field of a part, once, in its annotation: its help, its option, and what depends on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from enum import Enum
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints


class Role(Enum):
    """What depends on a field."""

    FIXED = "fixed"
    """The weights: a run goes on only with the same."""
    MAY_CHANGE = "may change"
    """What a run becomes that starts anew, as the number of epochs; it may differ when the run goes on."""
    FREE = "free"
    """Nothing that is kept: where and how it runs, what is written."""


@dataclass(frozen=True)
class Setting:
    """option: how the command line spells it, without dashes; "": as the field is called; None: it has no option.

    also: other spellings, with dashes. metavar: what its help says for a value. path: the option completes paths.
    read: the option's text to the field's value. excluded_too: a run by itself takes the bound that ``Gt`` excludes of
    a sweep's. searchable: a sweep may search it. younger: it came after what is kept, which must not know it at its
    default: `IDENTITY`, `HASH`.
    """

    help: str = ""
    also: tuple[str, ...] = ()
    option: str | None = ""
    role: Role = Role.FIXED
    metavar: str | None = None
    path: bool = False
    read: Callable[[str], object] | None = None
    excluded_too: bool = False
    searchable: bool = True
    younger: tuple[str, ...] = ()


IDENTITY = "a run's identity"
HASH = "a baseline's hash"


@dataclass(frozen=True)
class Described:
    """A field of a part. kind: its type without what is said of it. said: that."""

    name: str
    kind: Any
    said: tuple[object, ...]
    default: object
    setting: Setting


def settings(part: type[object]) -> tuple[Described, ...]:
    """The fields of a dataclass that have a `Setting`, in their order."""
    if not dataclasses.is_dataclass(part):
        return ()
    hints = get_type_hints(part, include_extras=True)
    found = []
    for field in dataclasses.fields(part):
        hint = hints[field.name]
        kind, *said = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        options = get_args(kind)
        if NoneType in options and any(get_origin(option) is Annotated for option in options):  # a bounded one, or None
            kind, *bounds = get_args(next(option for option in options if get_origin(option) is Annotated))
            kind, said = kind | None, [*bounds, *said]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        found += [Described(field.name, kind, tuple(said), default, s) for s in said if isinstance(s, Setting)]
    return tuple(found)


def names(part: type[object], role: Role) -> tuple[str, ...]:
    return tuple(field.name for field in settings(part) if field.setting.role is role)


def identity(values: object) -> dict[str, Any]:
    """What the weights depend on, of an instance of a part."""
    return {
        field.name: _plain(getattr(values, field.name))
        for field in settings(type(values))
        if field.setting.role is Role.FIXED and not _unknown(field, values, IDENTITY)
    }


def hashed(values: object, plain: Mapping[str, object]) -> dict[str, object]:
    """Of `plain`, the instance `values` of a part as a mapping, what a run that starts anew depends on."""
    left_out = {
        field.name
        for field in settings(type(values))
        if field.setting.role is Role.FREE or _unknown(field, values, HASH)
    }
    return {key: value for key, value in plain.items() if key not in left_out}


def said(values: object) -> dict[str, object]:
    """Of an instance of a part what differs from the defaults, as a file has it."""
    own = [field for field in settings(type(values)) if not _is_default(field, values)]
    return {field.name: _without_tuples(getattr(values, field.name)) for field in own}


def _plain(value: object) -> object:
    """A part inside a part as a mapping of what is said in it."""
    return said(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _is_default(field: Described, values: object) -> bool:
    return bool(getattr(values, field.name) == field.default)


def _without_tuples(value: object) -> object:
    """As a file gives it back, so that what was read compares equal."""
    if isinstance(value, Mapping):
        return {key: _without_tuples(entry) for key, entry in value.items()}
    return [_without_tuples(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _unknown(field: Described, values: object, where: str) -> bool:
    return where in field.setting.younger and _is_default(field, values)
