"""The format of schedule files as a JSON schema (draft 2020-12), for editors: made of the menus of classes and of their
constructors' signatures, so that it says what `build` takes. What depends on a model is not in it.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from raydistill.compression import granularity, rankings, rates, scopes
from raydistill.compression.build import MENUS
from raydistill.compression.policies import PruningControls, RegularizationControls
from raydistill.resolve import resolve
from raydistill.schedule import KINDS, NARROWED, NARROWING, SECTIONS, WEIGHTS
from raydistill.schedule.load import LAST_EPOCH
from raydistill.schedule.targets import EXCEPT, TYPES

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
OWN = r"^[^:]+:[^:]+$"
"""``pkg.mod:Class``, one's own."""

_PARTS: Mapping[str, Mapping[str, object]] = {
    "ranking": rankings.MENU,
    "rate": rates.MENU,
    "granularity": {**granularity.MENU, "Blocks": None},
    "scope": scopes.MENU,
}
"""Arguments that name an object of a menu, by the argument's name; or one's own."""
_FRACTIONS = ("initial_sparsity", "final_sparsity", "desired_sparsity")
"""Arguments that are sparsity levels, see `pruners.arguments.checked_level`."""
_PLAIN: dict[object, str] = {float: "number", int: "integer", bool: "boolean", str: "string", type(None): "null"}


def schedule_schema() -> Schema:
    """The whole file."""
    return {
        "$schema": DIALECT,
        "title": "raydistill schedule",
        "description": "What is compressed and when: named instances of classes, and policies that say in which epochs "
        "each acts. Distiller's version 1.",
        "$defs": definitions(),
        **schedule_body(),
    }


def schedule_body() -> Schema:
    """The mapping itself; it refers to `definitions`."""
    instances = {section: of_type("object", {"$ref": f"#/$defs/{section}"}, "null") for section in SECTIONS}
    policies = of_type("array", {"items": {"$ref": "#/$defs/policy"}}, "null")
    return {
        "type": "object",
        "properties": {
            "version": {"const": 1},
            **instances,
            "policies": {**policies, "description": "When each instance acts."},
        },
        "additionalProperties": False,
    }


def of_type(kind: str, described: Schema, *others: str) -> Schema:
    """A value of type `kind` that is `described`, or of one of `others`. Of an ``anyOf`` a validator would only say
    that no branch of it fits."""
    return {"type": [kind, *others], "if": {"type": kind}, "then": described}


def definitions() -> Schema:
    """What `schedule_body` refers to, under ``$defs``."""
    made = {
        section: {"type": "object", "additionalProperties": _instance(section), "description": f"{what} by its name."}
        for section, (what, _) in MENUS.items()
    }
    return {**made, "policy": _policy()}


def class_arguments(section: str, name: str) -> Mapping[str, inspect.Parameter]:
    """What a class of a section's menu takes from a file, by name, with resolved annotations; an open-ended one's
    ``**arguments`` too."""
    what, menu = MENUS[section]
    cls = _target(section, name)
    del what, menu
    found = list(inspect.signature(cls).parameters.values())[1:]  # the instance's name, or the optimizer
    hints = _hints(cls)
    return {one.name: one.replace(annotation=hints.get(one.name, one.annotation)) for one in found}


def about(section: str, name: str) -> str:
    """The first paragraph of a class's own docstring on one line, "" where it has none."""
    text = inspect.getdoc(_target(section, name)) or ""
    return " ".join(text.partition("\n\n")[0].split())


def type_schema(kind: object) -> Schema:
    """What a file may say for an annotation; {} for what JSON has no word for."""
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": list(inside)}
    if origin in (Union, types.UnionType):
        options = [type_schema(option) for option in inside]
        return {} if {} in options else {"anyOf": options}
    if origin is collections.abc.Callable or kind is collections.abc.Callable:
        return {"type": "string", "pattern": OWN}
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        return {"type": "array", **({"items": type_schema(inside[0])} if inside else {})}
    if origin in (dict, collections.abc.Mapping):
        return {"type": "object", "additionalProperties": type_schema(inside[1])}
    return {}


def dataclass_schema(part: type) -> Schema:
    """The fields of a dataclass as a mapping."""
    assert is_dataclass(part)
    hints = get_type_hints(part)
    known = {field.name: type_schema(hints[field.name]) for field in fields(part)}
    return {"type": "object", "properties": known, "additionalProperties": False}


def _instance(section: str) -> Schema:
    _, menu = MENUS[section]
    named = [{"const": name, "description": about(section, name)} for name in menu]
    own = {"type": "string", "pattern": OWN, "description": "Your own class: pkg.mod:Class."}
    return {
        "type": "object",
        "required": ["class"],
        "properties": {"class": {"anyOf": [*named, own]}},
        "allOf": [
            {
                "if": {"properties": {"class": {"const": name}}, "required": ["class"]},
                "then": _arguments(section, name),
            }
            for name in menu
        ],
    }


def _arguments(section: str, name: str) -> Schema:
    known: Schema = {"class": True}
    required, open_ended = [], False
    for argument, parameter in class_arguments(section, name).items():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
            continue
        known[argument] = _argument(argument, parameter)
        if parameter.default is parameter.empty:
            required.append(argument)
    if section in NARROWED:
        known |= narrowing_schema()
    found: Schema = {"properties": known, "additionalProperties": open_ended}
    if WEIGHTS in required and section in NARROWED:  # what narrows them may stand alone
        required.remove(WEIGHTS)
        found["if"] = {"not": {"anyOf": [{"required": [key]} for key in NARROWING]}}
        found["then"] = {"required": [WEIGHTS]}
    return {**found, "required": required} if required else found


def narrowing_schema() -> Schema:
    """``types`` and ``except``, in every section that names parts of a model."""
    about = {
        TYPES: "Of layers of these classes only, such as Conv2d.",
        EXCEPT: "But not these: names, globs, or regular expressions behind re:.",
    }
    listed: Schema = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
    texts = {"anyOf": [{"type": "string", "minLength": 1}, listed]}
    return {key: {**texts, "description": text} for key, text in about.items()}


def _argument(name: str, parameter: inspect.Parameter) -> Schema:
    schema = type_schema(parameter.annotation)
    if name in _PARTS:
        schema = {"anyOf": [{"enum": list(_PARTS[name])}, {"type": "string", "pattern": OWN}]}
    elif name in _FRACTIONS:
        schema = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
    elif name == "weights":
        schema = {
            "anyOf": [{"type": "string", "minLength": 1}, {**schema, "minItems": 1}],
            "description": "Names of weights, globs such as conv*.weight, or regular expressions behind re:.",
        }
    if parameter.default not in (parameter.empty, None) and schema:
        schema = {**schema, "default": parameter.default}
    return schema


def _policy() -> Schema:
    controls = {"pruner": dataclass_schema(PruningControls), "regularizer": dataclass_schema(RegularizationControls)}
    none: Schema = {"type": "object", "additionalProperties": False}
    epoch = {"type": "integer", "minimum": 0, "maximum": LAST_EPOCH}
    kinds = {
        kind: {
            "type": "object",
            "required": ["instance_name"],
            "properties": {
                "instance_name": {"description": f"A name under '{section}'."},
                "args": of_type("object", controls.get(kind, none), "null"),
            },
            "additionalProperties": False,
        }
        for kind, section in KINDS.items()
    }
    timing = {
        "starting_epoch": {**epoch, "description": "The first epoch, from 0."},
        "ending_epoch": {**epoch, "description": "Exclusive."},
        "frequency": {**epoch, "minimum": 1, "description": "Every so many epochs."},
    }
    epochs = {"type": "array", "items": epoch, "minItems": 1, "uniqueItems": True, "description": "Ascending."}
    return {
        "type": "object",
        "properties": {**kinds, **timing, "epochs": epochs},
        "additionalProperties": False,
        "allOf": [
            {"oneOf": [{"required": [kind]} for kind in kinds]},
            {"oneOf": [{"required": ["epochs"]}, {"required": list(timing)}]},
            {
                "if": {"required": ["epochs"]},
                "then": {"properties": dict.fromkeys(timing, False)},
            },
        ],
    }


def _target(section: str, name: str) -> Callable[..., object]:
    what, menu = MENUS[section]
    found = menu[name]
    made = resolve(found, {}, section, what) if isinstance(found, str) else found
    assert callable(made)
    return made


def _hints(cls: Callable[..., object]) -> dict[str, object]:
    """Resolved annotations of the constructor that the signature is of."""
    for base in inspect.getmro(cls) if inspect.isclass(cls) else ():
        init = vars(base).get("__init__")
        if init is None or not set(inspect.signature(cls).parameters) <= set(inspect.signature(init).parameters):
            continue
        try:
            return get_type_hints(init)
        except (NameError, TypeError):  # of what is imported for type checkers only
            return {}
    return {}
