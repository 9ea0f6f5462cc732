"""pydantic's errors as `Fault`s: ``file: key.path: rule, got value; way out``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from raydistill.errors import ABSENT, Fault, close_match

_RULES = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be finite",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "mapping_type": "must be a mapping",
    "tuple_type": "must be a list",
    "string_pattern_mismatch": "must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'",
    "string_too_long": "is too long",
}

_WORDS = {
    bool: ["true", "false"], str: ["text"], dict: ["a mapping"], list: ["a list"], int: ["a whole number"],
    float: ["a number"],
}  # fmt: skip


def validate(model: type[BaseModel], data: object, source: str, prefix: str = "") -> tuple[Any, list[Fault]]:
    """(the validated section or None, one fault for each thing that is wrong). prefix: its key path in the file."""
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        faults: dict[str, Fault] = {}
        for detail in error.errors(include_url=False):
            fault = _fault(model, data, detail, source, prefix)
            faults.setdefault(fault.where, fault)  # each branch of a union has its own complaint; one is enough
        return None, list(faults.values())


def _fault(model: type[BaseModel], data: Any, detail: Mapping[str, Any], source: str, prefix: str) -> Fault:
    kind, context = detail["type"], detail.get("ctx") or {}
    keys, holder = _real_keys(model, data, detail["loc"])
    where = f"{source}: {_path(prefix, keys)}" if keys or prefix else source
    whole_section = kind == "value_error" and isinstance(detail["input"], Mapping)
    value = ABSENT if kind == "missing" or whole_section else detail["input"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return Fault(where, "unknown key", ABSENT, close_match(keys[-1], _keys_of(holder)))
    if kind == "literal_error":
        allowed = [option.strip(" '") for option in str(context.get("expected", "")).replace(" or ", ", ").split(",")]
        return Fault(where, "must be one of " + ", ".join(allowed), value, close_match(value, allowed))
    bounds = {"greater_than": ("gt", "above"), "greater_than_equal": ("ge", "at least"),
              "less_than": ("lt", "below"), "less_than_equal": ("le", "at most")}  # fmt: skip
    if kind in bounds:
        bound, word = bounds[kind]
        limit = context[bound]
        return Fault(where, f"must be {word} {limit if isinstance(limit, int) else format(limit, 'g')}", value)
    if kind == "missing" and isinstance(keys[-1], int):
        return Fault(where, "is missing", ABSENT, "the list is too short")
    if kind == "missing":
        return Fault(where, "is missing", ABSENT, f"add '{keys[-1]}:'")
    rule = _kinds(holder, keys) or _RULES.get(kind) or detail["msg"].removeprefix("Value error, ")
    return Fault(where, rule[0].lower() + rule[1:], value)


def _kinds(holder: type | None, keys: list[str | int]) -> str:
    """The rule of a field that takes several kinds (``bool | Literal["auto"]``); "" for any other field."""
    kind = _keys_of(holder).get(str(keys[-1])) if keys else None
    if get_origin(kind) not in {Union, UnionType}:
        return ""
    kinds = [kind for kind in get_args(kind) if kind is not type(None)]
    if len(kinds) < 2:
        return ""
    words: list[str] = []
    for kind in kinds:
        bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        words += _WORDS.get(get_origin(bare) or bare) or [str(value) for value in get_args(bare)]
    return "must be " + ", ".join(words[:-1]) + " or " + words[-1]


def _real_keys(model: type[BaseModel], data: object, loc: tuple[str | int, ...]) -> tuple[list[str | int], type | None]:
    """The part of pydantic's location that stands in the file (unions add a branch's name), and that key's model."""
    keys: list[str | int] = []
    holder: type | None = model
    current: Any = model
    at: Any = data
    for step in loc:
        inside = (isinstance(at, Mapping) and step in at) or (isinstance(at, list) and isinstance(step, int))
        absent = isinstance(at, Mapping) and step in _keys_of(current)
        if not inside and not absent:
            continue
        at = at[step] if inside and (isinstance(at, Mapping) or int(step) < len(at)) else None
        keys.append(step)
        of_each = get_args(current)[1] if get_origin(current) is dict else None  # names that the user gives
        holder, current = current, _holder_in(of_each or _keys_of(current).get(str(step)))
    return keys, holder


def _keys_of(holder: type | None) -> dict[str, object]:
    """The keys of a section, or of a dataclass that stands for one, with their types."""
    if get_origin(holder) is not None:
        return {}
    if isinstance(holder, type) and issubclass(holder, BaseModel):
        return {name: field.annotation for name, field in holder.model_fields.items()}
    return {field.name: field.type for field in fields(holder)} if is_dataclass(holder) else {}


def _holder_in(kind: object) -> Any:
    """A section, a dataclass that stands for one, or a mapping of names to sections."""
    if get_origin(kind) is dict and section_of(get_args(kind)[1]) is not None:
        return kind
    inside = [option for option in (kind, *get_args(kind)) if isinstance(option, type) and is_dataclass(option)]
    return section_of(kind) or next(iter(inside), None)


def section_of(kind: object) -> type[BaseModel] | None:
    """The section that a key of such a type holds, if any."""
    sections = [
        option for option in (kind, *get_args(kind)) if isinstance(option, type) and issubclass(option, BaseModel)
    ]
    return sections[0] if sections else None


def _path(prefix: str, keys: list[str | int]) -> str:
    text = prefix
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text
