"""Options of a command that are made of the fields of a part: spelling, help, bounds and default stand there."""

from __future__ import annotations

import collections.abc
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from annotated_types import Ge

from raydistill.parts.setting import Described, settings

Given = Mapping[str, Any]
"""The values of a part's options, by the names of its fields."""
NONE: Given = {}
"""What such a parameter of a command has for a default: typer always gives it."""


@dataclass(frozen=True)
class OptionsOf:
    """What stands in the annotation of a command's parameter in whose place the options come; it gets their values by
    the names of the fields. panel: the heading of their help.
    """

    part: type[object]
    panel: str


def typed(context: typer.Context) -> frozenset[str]:
    """The parameters of a command that the user gave, by their names in Python; the others have their defaults."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and "DEFAULT" not in source.name)


def with_file(part: type[object], given: Given, file: Mapping[str, object], said_by_user: Collection[str]) -> Given:
    """The values of a part's options, those of a file in the place of what the user did not type."""
    fields = {field.name: field for field in settings(part)}
    taken = {name: file[name] for name in fields if name in file and _stem(fields[name]) not in said_by_user}
    return {**given, **taken}


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """`command` as typer sees it: each parameter annotated with `OptionsOf` unfolded to the options of that part."""
    shown: list[inspect.Parameter] = []
    folded: dict[str, dict[str, Described]] = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        of = next((said for said in get_args(parameter.annotation)[1:] if isinstance(said, OptionsOf)), None)
        if of is None:
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        fields = {_stem(field): field for field in settings(of.part) if field.setting.option is not None}
        folded[name] = fields
        shown += [_option(stem, field, of.panel) for stem, field in fields.items()]

    def unfolded(**given: object) -> None:
        for name, fields in folded.items():
            given[name] = {field.name: _value(field, given.pop(stem)) for stem, field in fields.items()}
        command(**given)

    update_wrapper(unfolded, command)
    del unfolded.__wrapped__  # type: ignore[attr-defined]  # its signature is not this one's
    unfolded.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    unfolded.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return unfolded


def _stem(field: Described) -> str:
    return (field.setting.option or field.name).replace("-", "_")


def _option(stem: str, field: Described, panel: str) -> inspect.Parameter:
    setting, kind = field.setting, _plain(field)
    least = next((bound.ge for bound in field.said if isinstance(bound, Ge)), None) if kind is int else None
    option = typer.Option(
        f"--{stem.replace('_', '-')}",
        *setting.also,
        help=setting.help,
        rich_help_panel=panel,
        metavar=setting.metavar,
        min=least,  # type: ignore[arg-type]
    )
    default = None if _is_read(field) else field.default  # no text stands for what is not text
    optional = kind | None if default is None else kind
    annotation = Annotated[optional, option]  # type: ignore[valid-type]
    return inspect.Parameter(stem, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _plain(field: Described) -> Any:
    """The type that typer reads."""
    if field.setting.path:
        return Path
    if (pair := _pair(field)) is not None:
        return pair
    if _is_read(field) or any(get_origin(kind) is Literal for kind in (field.kind, *get_args(field.kind))):
        return str  # what is wrong with a word is said where the part is checked
    return next((kind for kind in get_args(field.kind) if kind is not NoneType), field.kind)


def _value(field: Described, given: Any) -> object:
    if given is None:
        return field.default
    if field.setting.path:
        return str(given)
    if field.setting.read is not None:
        return field.setting.read(given)
    if _pair(field) is not None:
        return given
    if get_origin(field.kind) is tuple:  # ``norms,biases``, or with spaces
        return tuple(given.replace(",", " ").split())
    if get_origin(field.kind) is collections.abc.Mapping:
        return arguments(given, f"--{_stem(field).replace('_', '-')}")
    return given


def arguments(text: str, option: str) -> Mapping[str, object]:
    """``{betas: [0.9, 0.98]}``, or without the braces.

    Raises:
        ConfigError: it is no mapping.
    """
    from raydistill.schedule import parse_yaml

    inside = text.strip()
    return parse_yaml(inside if inside.startswith("{") else f"{{{inside}}}", option)


def _pair(field: Described) -> Any:
    """The type of so many values, each a word of its own, where the field is that: ``tuple[float, float]``."""
    kinds = [kind for kind in (field.kind, *get_args(field.kind)) if get_origin(kind) is tuple]
    return next((kind for kind in kinds if all(isinstance(each, type) for each in get_args(kind))), None)


def _is_read(field: Described) -> bool:
    """Whether the option's text becomes something else."""
    return field.setting.read is not None or get_origin(field.kind) in (tuple, collections.abc.Mapping)
