"""The formats of sweep files and run files as JSON schemas (draft 2020-12), for editors: pydantic's schema of the
sections, with what they leave to other rooms put in: schedules, distributions, the menus that names are chosen from.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from pydantic import BaseModel

from raydistill import datasets, models, tasks
from raydistill.compression.schema import DIALECT, OWN, definitions, narrowing_schema, of_type, schedule_body
from raydistill.metrics import DIRECTIONS
from raydistill.parts import DatasetConfig, Optimizer, Training, settings
from raydistill.search import Choice, LogUniform, QUniform, RandInt, Uniform
from raydistill.search.aliases import NAME
from raydistill.search.constraints import FORM
from raydistill.sweep.file import spec
from raydistill.sweep.file.run_file import RunSections
from raydistill.sweep.file.spec import (
    AUTO,
    Menu,
    SearcherSection,
    SweepSections,
    TrialSchedulerSection,
    WarmSweepSection,
)
from raydistill.sweep.file.warm_entries import LEAST_POOL, MOST_POOL
from raydistill.tasks.regression.task import DIABETES
from raydistill.training.optimizer import MENU as OPTIMIZERS

Schema = dict[str, Any]
_DISTRIBUTIONS = {
    "uniform": Uniform, "loguniform": LogUniform, "quniform": QUniform, "randint": RandInt, "choice": Choice,
}  # fmt: skip
_BOUND: Schema = {"type": "string", "pattern": f"^{FORM.pattern}$"}
_KEY_PATH = r"^[^.\s]+(\.[^.\s]+)+$"
_SPELLINGS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_PARTS: Mapping[str, type[object]] = {
    "TrainingSection": Training, "DatasetSection": DatasetConfig, "Optimizer": Optimizer,
}  # fmt: skip
"""The sections that are parts of a run, whose fields have their help beside them."""
_SECTIONS = {
    kind.__name__ for kind in vars(spec).values() if isinstance(kind, type) and issubclass(kind, BaseModel)
} | {"Optimizer"}
"""Whose docstrings say what their fields are."""


def sweep_schema() -> Schema:
    """The whole file of ``raydistill sweep``."""
    schema = _file(SweepSections, "raydistill sweep file")
    known = schema["properties"]
    for key, found in {
        "search": {"$ref": "#/$defs/search"},
        "objectives": _nullable({"type": "object", "additionalProperties": {"enum": list(DIRECTIONS)}}),
        "constraints": {"type": "array", "items": _BOUND},
        "goal": {"anyOf": [_BOUND, {"type": "array", "items": _BOUND, "minItems": 1}, {"type": "null"}]},
        "aliases": {**known["aliases"], "propertyNames": {"pattern": f"^{NAME.pattern}$"}},
        "warm_start": _nullable({"$ref": "#/$defs/warm_start"}),
    }.items():
        known[key] = {**found, "description": known[key]["description"]}
    schema["required"] = [key for key in schema["required"] if key not in ("schedule", "search")]
    schema["anyOf"] = [{"required": ["schedule", "search"]}, {"required": ["goal"]}]
    schema["$defs"] |= {**_searched(), "warm_start": _warm_start()}
    for section in (TrialSchedulerSection, SearcherSection):
        _only_what_is_used(schema["$defs"][section.__name__], section)
    alias = schema["$defs"]["AliasSection"]
    alias["minProperties"] = 1
    where = alias["properties"]["where"]
    where["anyOf"] = [_BOUND, {"type": "array", "items": _BOUND, "minItems": 1}, {"type": "null"}]
    baseline = schema["$defs"]["BaselineSection"]["properties"]
    baseline["schedule"] = {
        **of_type("object", {"$ref": "#/$defs/schedule"}, "null"),
        "description": baseline["schedule"]["description"],
    }
    return schema


def run_schema() -> Schema:
    """The whole file of ``raydistill compress FILE``."""
    return _file(RunSections, "raydistill run file")


def _file(sections: type[BaseModel], title: str) -> Schema:
    schema: Schema = _plain(sections.model_json_schema())
    defined = schema.setdefault("$defs", {})
    defined |= {**definitions(), "schedule": schedule_body()}
    known = schema["properties"]
    others = ["string"] if "schedule" in schema.get("required", []) else ["string", "null"]
    known["schedule"] = {
        **of_type("object", {"$ref": "#/$defs/schedule"}, *others),
        "description": "The path of a schedule file, from this file's folder, or a schedule in place.",
    }
    known["train"] |= {"anyOf": [*_with_bare_name(known["train"])]}
    defined["ModelSection"]["properties"]["arch"] |= _named(models.MENU)
    defined["TaskSection"]["properties"]["name"] |= _named(tasks.MENU)
    defined["DatasetSection"]["properties"]["name"] |= _named([*datasets.names(), DIABETES])
    defined["Optimizer"]["properties"]["name"] |= _named(OPTIMIZERS)
    for section in (schema, *(found for name, found in defined.items() if name in _SECTIONS)):
        text, told = _told(section.get("description", ""), section["properties"])
        section["description"] = text
        for name, what in told.items():
            section["properties"][name].setdefault("description", what)
    for name, part in _PARTS.items():
        for field in settings(part):
            if field.setting.help and field.name in defined[name]["properties"]:
                defined[name]["properties"][field.name]["description"] = field.setting.help
    return {"$schema": DIALECT, **schema, "title": title}


def _told(text: str, names: Iterable[str]) -> tuple[str, dict[str, str]]:
    """A docstring taken apart: what it says of the whole, and of each field (``lr: the rate. momentum: ...``)."""
    one_line = " ".join(text.split()).replace("``", "`")
    name = f"(?:{'|'.join(names)})"
    begins = list(re.finditer(rf"(?:^|(?<=[.:] ))({name}(?:, {name})*): ", one_line))
    ends = [*(found.start() for found in begins[1:]), len(one_line)][: len(begins)]
    told = {
        each: one_line[found.end() : end].strip()
        for found, end in zip(begins, ends, strict=True)
        for each in found[1].split(", ")
    }
    whole = one_line[: begins[0].start()] if begins else one_line
    return whole.strip(), {name: what[:1].upper() + what[1:] for name, what in told.items()}


def _plain(node: object) -> Any:
    """pydantic's schema in the words of the standard: bounds by their names there, without titles of its own."""
    if isinstance(node, list):
        return [_plain(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    holds_names = node.get("type") == "object" and isinstance(node.get("properties"), dict)
    found = {_SPELLINGS.get(key, key): _plain(value) for key, value in node.items() if key != "title"}
    if holds_names:  # a field may be called as a word of the standard is
        found["properties"] = {name: _plain(field) for name, field in node["properties"].items()}
    if "default" in found and isinstance(found["default"], dict):
        del found["default"]  # a section that is left out has its own fields' defaults
    return found


def _with_bare_name(train: Schema) -> Iterable[Schema]:
    yield {"type": "string", "pattern": OWN, "description": "Your training loop, pkg.mod:function."}
    yield from (option for option in train["anyOf"])


def _named(menu: Iterable[str]) -> Schema:
    """One of a menu, or one's own."""
    return {"anyOf": [{"enum": list(menu)}, {"type": "string", "pattern": OWN}]}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _searched() -> Schema:
    """``search``: key paths and ``per_layer``, each with what it draws from."""
    number: Schema = {"type": "number"}
    options = {"type": "array", "minItems": 1, "items": {"type": ["number", "string", "boolean"]}}
    drawn: Schema = {}
    for name, kind in _DISTRIBUTIONS.items():
        of_options = kind is Choice
        bounds = [field.name for field in fields(kind)]
        element = {"type": "integer"} if kind is RandInt else number
        listed = {"type": "array", "items": element, "minItems": len(bounds), "maxItems": len(bounds)}
        drawn[name] = options if of_options else {**listed, "description": f"[{', '.join(bounds)}]"}
    weights = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    per_layer: Schema = {
        "type": "object",
        "properties": {
            "weights": {**weights, "description": "Names, globs, or regular expressions behind re:; left out, all."},
            **narrowing_schema(),
        },
        "additionalProperties": {"$ref": "#/$defs/distribution"},
    }
    several = {"type": "array", "items": {"$ref": "#/$defs/per_layer"}, "minItems": 1}
    return {
        "distribution": {
            "type": "object",
            "properties": drawn,
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        },
        "per_layer": per_layer,
        "search": {
            "type": "object",
            "description": "What is searched: key path to distribution, and per_layer.",
            "minProperties": 1,
            "properties": {"per_layer": {"anyOf": [{"$ref": "#/$defs/per_layer"}, several]}},
            "patternProperties": {_KEY_PATH: {"$ref": "#/$defs/distribution"}},
            "additionalProperties": False,
        },
    }


def _warm_start() -> Schema:
    of_sweep = _plain(WarmSweepSection.model_json_schema())
    values = {
        "type": "object",
        "patternProperties": {_KEY_PATH: {"type": ["number", "string", "boolean"]}},
        "additionalProperties": False,
        "minProperties": 1,
    }
    path = {"type": "string", "description": "A schedule file, trained as it is; or auto."}
    of_pool = {"type": "integer", "minimum": LEAST_POOL, "maximum": MOST_POOL}
    pool = {"type": "object", "properties": {AUTO: of_pool}, "required": [AUTO], "additionalProperties": False}
    several = {"type": "array", "items": {"anyOf": [path, pool, of_sweep, values]}, "minItems": 1}
    return {"anyOf": [{"const": AUTO}, pool, several]}


def _only_what_is_used(schema: Schema, section: type[Menu]) -> None:
    """A method's own options, and no other's."""
    cases = [(name, sorted(uses)) for name, uses in section.uses.items()]
    schema["allOf"] = [
        {
            "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
            "then": {"propertyNames": {"enum": ["name", *uses]}},
        }
        for name, uses in cases
    ]
    own = {"properties": {"name": {"pattern": OWN}}, "required": ["name"]}
    schema["allOf"].append({"if": own, "then": {"propertyNames": {"enum": ["name", "args"]}}})
    unnamed = {"not": {"required": ["name"]}}
    usual = sorted(section.uses[section.unnamed])
    schema["allOf"].append({"if": unnamed, "then": {"propertyNames": {"enum": usual} if usual else False}})
    schema["properties"] = copy.deepcopy(schema["properties"])
