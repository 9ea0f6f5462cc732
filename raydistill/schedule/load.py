"""YAML to `ScheduleSpec`: the whole file is checked and every fault is reported at once.

What needs a model or a class (unknown classes, arguments, weights) is checked by `raydistill.compression.build`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard, overload

from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.schedule.file_kind import SCHEDULE, check_kind
from raydistill.schedule.naming import Names, named_schedule
from raydistill.schedule.spec import KINDS, SECTIONS, InstanceSpec, PolicySpec, ScheduleSpec
from raydistill.schedule.yaml_file import dump_yaml, read_yaml

_TIMING = ("starting_epoch", "ending_epoch", "frequency")
_TOP_LEVEL = ("version", *SECTIONS, "policies")
LAST_EPOCH = 1_000_000
_MOST_ACTIONS = 1_000_000


def load_schedule(path: str | Path, strict: bool = False, source: str = "") -> ScheduleSpec:
    """Load a schedule file; see `parse_schedule`. source: what errors call it, if not by its path.

    strict: a key that is given twice is an error; if not, the last counts, as Distiller's users are used to, and the
    spec's `warnings` say so.

    Raises:
        ConfigError: as `read_yaml` and `parse_schedule`, or it is another kind of file.
    """
    source = source or str(path)
    warnings: list[str] = []

    def twice(key: str, first: int, last: int) -> None:
        rule = f"'{key}' is given twice, in lines {first} and {last}: the last counts"
        warnings.append(str(Fault(source, rule, ABSENT, "keep one of the two")))

    said = read_yaml(path, None if strict else twice)
    check_kind(said, SCHEDULE, source)
    return parse_schedule(said, source, tuple(warnings))


def naming_weights(spec: ScheduleSpec, names: Names) -> ScheduleSpec:
    """The same schedule with the weights and layers that its patterns, types and exclusions mean.

    Raises:
        ConfigError: as `Targets.by_entry`.
    """
    return parse_schedule(named_schedule(spec.mapping, names, spec.source), spec.source, spec.warnings)


def parse_schedule(mapping: Mapping[str, object], source: str, warnings: tuple[str, ...] = ()) -> ScheduleSpec:
    """Turn a loaded mapping into a `ScheduleSpec`. `mapping` is copied, never changed. warnings: of its reading.

    Raises:
        ConfigError: one fault for each thing that is wrong.
    """
    raw = copy.deepcopy(dict(mapping))
    faults: list[Fault] = []
    for key in raw:
        if key not in _TOP_LEVEL:
            faults.append(Fault(f"{source}: {key}", "unknown section", ABSENT, close_match(key, _TOP_LEVEL)))
    if raw.get("version", 1) != 1:
        faults.append(Fault(f"{source}: version", "must be 1", raw["version"], "only version 1 is known"))
    instances = _instances(raw, source, faults)
    names = {section: [one.name for one in instances if one.section == section] for section in SECTIONS}
    policies = _policies(raw.get("policies"), source, names, faults)
    if faults:
        raise ConfigError(*faults)
    return ScheduleSpec(source, tuple(instances), tuple(policies), raw, warnings)


def dump_schedule(spec: ScheduleSpec) -> str:
    """The schedule as YAML text that `load_schedule` reads back to an equal spec."""
    return dump_yaml(spec.mapping)


def _instances(raw: Mapping[str, object], source: str, faults: list[Fault]) -> list[InstanceSpec]:
    instances = []
    for section in SECTIONS:
        entries = raw.get(section)
        if entries is None:
            continue
        if not isinstance(entries, dict):
            faults.append(Fault(f"{source}: {section}", "must map names to instances", entries))
            continue
        for name, body in entries.items():
            where = f"{source}: {section}.{name}"
            if not isinstance(body, dict):
                faults.append(Fault(where, "must be a mapping with 'class' and its arguments", body))
            elif not isinstance(body.get("class"), str):
                way_out = "give the class name" if "class" in body else close_match("class", body)
                faults.append(Fault(f"{where}.class", "must name a class", body.get("class", ABSENT), way_out))
            else:
                args = {str(key): value for key, value in body.items() if key != "class"}
                instances.append(InstanceSpec(section, str(name), body["class"], args))
    return instances


def _policies(entries: object, source: str, names: Mapping[str, list[str]], faults: list[Fault]) -> list[PolicySpec]:
    """names: of the instances, by their sections."""
    if entries is None:
        entries = []
    if not isinstance(entries, list):
        faults.append(Fault(f"{source}: policies", "must be a list", entries, "begin each policy with '- '"))
        return []
    policies = []
    for index, body in enumerate(entries):
        policy = _policy(index, body, source, names, faults)
        if policy is not None:
            policies.append(policy)
    quantized = {policy.instance_name for policy in policies if policy.kind == "quantizer"}
    actions = sum(policy.count for policy in policies)
    if actions > _MOST_ACTIONS:
        rule = f"may act {_MOST_ACTIONS:,} times in all"
        faults.append(Fault(f"{source}: policies", rule, actions, "lower their ending_epoch"))
    if len(quantized) > 1:
        faults.append(Fault(f"{source}: policies", "at most one quantizer may act", sorted(quantized), "keep one"))
    return policies


def _policy(
    index: int, body: object, source: str, names: Mapping[str, list[str]], faults: list[Fault]
) -> PolicySpec | None:
    where = f"{source}: policies[{index}]"
    if not isinstance(body, dict):
        faults.append(Fault(where, "must be a mapping", body))
        return None
    before = len(faults)
    allowed = (*KINDS, *_TIMING, "epochs")
    for key in body:
        if key not in allowed:
            faults.append(Fault(f"{where}.{key}", "unknown key", ABSENT, close_match(key, allowed)))
    kinds = [key for key in body if key in KINDS]
    if len(kinds) != 1:
        found = kinds if kinds else ABSENT
        faults.append(Fault(where, f"must have exactly one of {', '.join(KINDS)}", found))
        return None
    kind = kinds[0]
    instance_name, args = _reference(body[kind], kind, where, names[KINDS[kind]], faults)
    start, end, frequency, epochs = _timing(body, where, faults)
    if len(faults) > before:
        return None
    return PolicySpec(index, kind, instance_name, args, start, end, frequency, epochs)


def _reference(
    body: object, kind: str, where: str, names: list[str], faults: list[Fault]
) -> tuple[str, dict[str, object]]:
    if not isinstance(body, dict) or "instance_name" not in body:
        faults.append(Fault(f"{where}.{kind}", "must have 'instance_name'", body, "name an instance of its section"))
        return "", {}
    for key in body:
        if key not in ("instance_name", "args"):
            known = close_match(key, ("instance_name", "args"))
            faults.append(Fault(f"{where}.{kind}.{key}", "unknown key", ABSENT, known))
    name, args = str(body["instance_name"]), body.get("args") or {}
    if name not in names:
        path = f"{where}.{kind}.instance_name"
        faults.append(Fault(path, f"no such entry in '{KINDS[kind]}'", name, close_match(name, names)))
    if not isinstance(args, dict):
        faults.append(Fault(f"{where}.{kind}.args", "must be a mapping", args))
        args = {}
    return name, dict(args)


def _timing(
    body: Mapping[str, object], where: str, faults: list[Fault]
) -> tuple[int, int, int, tuple[int, ...] | None]:
    given = [key for key in _TIMING if key in body]
    if "epochs" in body:
        epochs = body["epochs"]
        if given:
            faults.append(Fault(where, f"has both 'epochs' and '{given[0]}'", ABSENT, "keep one of the two"))
        if not isinstance(epochs, list) or not epochs or not all(_is_epoch(epoch) for epoch in epochs):
            faults.append(Fault(f"{where}.epochs", f"must be a list of epochs from 0 to {LAST_EPOCH:,}", epochs))
            return 0, 1, 1, None
        if sorted(set(epochs)) != epochs:
            faults.append(Fault(f"{where}.epochs", "must ascend, each epoch once", epochs))
        return epochs[0], epochs[-1] + 1, 1, tuple(epochs)
    missing = [key for key in _TIMING if key not in body]
    if missing:
        faults.append(Fault(where, f"needs '{missing[0]}' (or 'epochs')", ABSENT, "say when the policy acts"))
        return 0, 1, 1, None
    start, end, frequency = (body[key] for key in _TIMING)
    for key in (key for key in _TIMING if not _is_epoch(body[key])):
        faults.append(Fault(f"{where}.{key}", f"must be a whole number from 0 to {LAST_EPOCH:,}", body[key]))
    if not (_is_epoch(start) and _is_epoch(end) and _is_epoch(frequency)):
        return 0, 1, 1, None
    if frequency < 1:
        faults.append(Fault(f"{where}.frequency", "must be at least 1 (every so many epochs)", frequency))
    if end <= start:
        rule = f"must be above starting_epoch {start} (it is exclusive)"
        faults.append(Fault(f"{where}.ending_epoch", rule, end, f"use {start + 1} or more"))
    return start, end, frequency, None


def _is_epoch(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LAST_EPOCH


@overload
def without_module_prefix(value: str) -> str: ...


@overload
def without_module_prefix(value: object) -> object: ...


def without_module_prefix(value: object) -> object:
    """Drop DataParallel's ``module`` from parameter names, in strings, lists and mapping keys alike."""
    if isinstance(value, str):
        return value.removeprefix("module.").replace(".module.", ".")
    if isinstance(value, list):
        return [without_module_prefix(entry) for entry in value]
    if isinstance(value, dict):
        return {without_module_prefix(key): without_module_prefix(entry) for key, entry in value.items()}
    return value
