"""Change values of a schedule mapping by key path; the input is never changed.

A key path is ``pruners.NAME.ARGUMENT`` (any section), ``policies[INDEX].FIELD``, ``policies.INSTANCE_NAME.FIELD`` (all
policies of that instance; FIELD is starting_epoch, ending_epoch, frequency, epochs, or an argument of the policy), or
``per_layer.WEIGHT.NAME``: an argument of the pruner that holds this weight, or a FIELD of its policies; bits_weights
and bits_bias are what the quantizer says of its layer. Names may hold dots, as weights do.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from typing import TypedDict, cast

from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.schedule.load import without_module_prefix
from raydistill.schedule.spec import KINDS, SECTIONS

PER_LAYER = "per_layer."
_FIELDS = ("starting_epoch", "ending_epoch", "frequency", "epochs")
_OF_QUANTIZER = ("bits_weights", "bits_bias")
_LR_EPOCH_ARGUMENTS = ("step_size", "milestones", "T_max", "T_0", "total_iters", "patience", "cooldown")

Body = dict[str, object]
"""What stands under one name of a section, or one policy."""


class _Timing(TypedDict, total=False):
    """A policy's epochs."""

    epochs: list[int]
    starting_epoch: int
    ending_epoch: int
    frequency: int


def _policies(mapping: Mapping[str, object]) -> list[Body]:
    return cast(list[Body], mapping.get("policies") or [])


def _section(mapping: Mapping[str, object], name: str) -> dict[str, Body]:
    return cast(dict[str, Body], mapping.get(name) or {})


def with_values(
    mapping: Mapping[str, object],
    values: Mapping[str, object],
    source: str,
    of_weights: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, object]:
    """A copy of `mapping` with `values` (key path to value) put in.

    ``per_layer`` paths are put in last, after the schedule is split into one pruner a weight (`split_per_weight`).
    of_weights: by such a path the (weight, argument) that it stands for, where that is known already.

    Raises:
        ConfigError: one fault for each key path that leads nowhere.
    """
    faults: list[Fault] = []
    result = copy.deepcopy(dict(mapping))
    per_layer = [path for path in values if path.startswith(PER_LAYER)]
    for path in [path for path in values if not path.startswith(PER_LAYER)]:
        for holder, key in _targets(result, path, f"{source}: {path}", faults):
            holder[key] = copy.deepcopy(values[path])
    if per_layer:
        result = split_per_weight(result)
        layers = _Layers(result)
        for path in per_layer:
            named = (of_weights or {}).get(path) or layers.named(path)
            if _of_quantizer(path):
                for body in _overrides(result, path, f"{source}: {path}", faults):
                    body[path.rpartition(".")[2]] = copy.deepcopy(values[path])
                continue
            for holder, key in layers.targets(path, named, f"{source}: {path}", faults):
                holder[key] = copy.deepcopy(values[path])
    if faults:
        raise ConfigError(*faults)
    return result


def get_value(mapping: Mapping[str, object], path: str, source: str) -> object:
    """The value at a key path, `ABSENT` if the place exists but nothing is written there."""
    result = split_per_weight(mapping) if path.startswith(PER_LAYER) else copy.deepcopy(dict(mapping))
    faults: list[Fault] = []
    targets = _targets(result, path, f"{source}: {path}", faults)
    if faults:
        raise ConfigError(*faults)
    holder, key = targets[0]
    return holder.get(key, ABSENT)


def read_value(mapping: Mapping[str, object], path: str) -> object:
    """The value at a key path; `ABSENT` if the schedule has none, or several that differ (two pruners of a weight)."""
    result = split_per_weight(mapping) if path.startswith(PER_LAYER) else copy.deepcopy(dict(mapping))
    found = [holder.get(key, ABSENT) for holder, key in _targets(result, path, "", [])]
    return found[0] if found and all(value == found[0] for value in found) else ABSENT


def split_per_weight(mapping: Mapping[str, object]) -> dict[str, object]:
    """A copy in which every pruner that lists weights becomes one pruner a weight, named ``PRUNER/WEIGHT``.

    Pruners with a ``levels`` mapping split likewise. Policies repeat in place, so their order stays.
    """
    result = copy.deepcopy(dict(mapping))
    pruners = _section(result, "pruners")
    renamed: dict[str, list[str]] = {}
    split: dict[str, object] = {}
    for name, body in pruners.items():
        parts = _parts(body) if isinstance(body, dict) else None
        if parts is None or str(name).partition("/")[2] in parts:  # not per weight, or split before
            split[name] = body
            continue
        renamed[str(name)] = []
        for weight, arguments in parts.items():
            part = f"{name}/{weight}"
            renamed[str(name)].append(part)
            split[part] = {k: arguments[k] if k in arguments else copy.deepcopy(v) for k, v in body.items()}
    if not renamed:
        return result
    result["pruners"] = split
    policies = []
    for policy in _policies(result):
        reference = policy.get("pruner") if isinstance(policy, dict) else None
        name = str(reference.get("instance_name")) if isinstance(reference, dict) else ""
        for part in renamed.get(name, [""]):
            repeated = copy.deepcopy(policy)
            if part:
                cast(Body, repeated["pruner"])["instance_name"] = part
            policies.append(repeated)
    result["policies"] = policies
    return result


def of_weight(mapping: Mapping[str, object], weight: str, argument: str, value: object) -> dict[str, object] | None:
    """What of a schedule prunes one weight by itself, with that value for an argument of its pruner, in one epoch; None
    where no pruner lists the weight. A value that was to rise to this one begins no higher."""
    whole = split_per_weight(mapping)
    acting = {str(cast(Body, policy.get("pruner") or {}).get("instance_name")) for policy in _policies(whole)}
    for name, body in _section(whole, "pruners").items():
        if name not in acting or body.get("weights") != [weight]:
            continue
        begins = {
            key: min(first, value)
            for key, first in body.items()
            if key == "initial_sparsity" and isinstance(first, int | float) and isinstance(value, int | float)
        }
        policy = {"pruner": {"instance_name": name}, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1}
        return {"version": 1, "pruners": {name: {**body, **begins, argument: value}}, "policies": [policy]}
    return None


def scale_epochs(mapping: Mapping[str, object], old_epochs: int, new_epochs: int) -> dict[str, object]:
    """A copy of a schedule for `old_epochs` epochs, shortened or stretched to `new_epochs`.

    Policies keep at least one epoch. Frequencies and the LR schedulers' own epoch arguments scale along; what acts in
    every epoch does so still.
    """
    ratio = new_epochs / old_epochs

    def at_least(minimum: int, value: float) -> int:
        return max(minimum, round(value * ratio))

    def scaled(value: object) -> object:
        return at_least(1, value) if isinstance(value, (int, float)) else value

    result = copy.deepcopy(dict(mapping))
    for policy in cast(list[_Timing], _policies(result)):
        if "epochs" in policy:
            policy["epochs"] = sorted({min(new_epochs - 1, at_least(0, epoch)) for epoch in policy["epochs"]})
        if "starting_epoch" in policy and "ending_epoch" in policy:
            policy["starting_epoch"] = min(new_epochs - 1, at_least(0, policy["starting_epoch"]))
            policy["ending_epoch"] = max(policy["starting_epoch"] + 1, at_least(1, policy["ending_epoch"]))
            length = policy["ending_epoch"] - policy["starting_epoch"]
            frequency = policy.get("frequency", 1)
            policy["frequency"] = 1 if frequency == 1 else min(length, at_least(1, frequency))
    for body in _section(result, "lr_schedulers").values():
        for key in _LR_EPOCH_ARGUMENTS:
            if key in body:
                old = body[key]
                body[key] = [scaled(entry) for entry in old] if isinstance(old, list) else scaled(old)
    return result


def _parts(body: Mapping[str, object]) -> dict[str, Body] | None:
    """weight -> arguments that replace the pruner's, or None for a pruner that is not per weight."""
    if body.get("group_dependency"):
        return None  # its weights are pruned together
    weights, levels = body.get("weights"), body.get("levels")
    if isinstance(weights, list) and weights:
        return {name: {"weights": [weight]} for name, weight in _part_names(weights).items()}
    if isinstance(levels, dict) and levels:
        return {name: {"levels": {w: levels[w]}} for name, w in _part_names(levels).items()}
    return None


def _part_names(weights: Iterable[object]) -> dict[str, object]:
    """What the part of each weight is called: without DataParallel's prefix, unless two would be called the same."""
    bare: dict[str, list[object]] = {}
    for weight in weights:
        bare.setdefault(without_module_prefix(str(weight)), []).append(weight)
    return {(name if len(same) == 1 else str(weight)): weight for name, same in bare.items() for weight in same}


def _targets(mapping: Body, path: str, where: str, faults: list[Fault]) -> list[tuple[Body, str]]:
    """Where the value of a key path stands: (mapping that holds it, its key), several for repeated policies."""
    if _of_quantizer(path):
        return [(body, path.rpartition(".")[2]) for body in _overrides(mapping, path, where, faults)]
    if path.startswith(PER_LAYER):
        layers = _Layers(mapping)
        return layers.targets(path, layers.named(path), where, faults)
    policies = _policies(mapping)
    match = re.match(r"policies\[(\d+)\]\.(.+)$", path)
    if match:
        if int(match[1]) < len(policies):
            return [_field(policies[int(match[1])], match[2])]
        faults.append(Fault(where, "there is no such policy", ABSENT, f"the schedule has {len(policies)}"))
        return []
    section, _, rest = path.partition(".")
    if section == "policies":
        names = [_policy_instance(policy)[1] for policy in policies]
        name, key = _longest(rest, names)
        if name and key:
            return [_field(policy, key) for policy in policies if _policy_instance(policy)[1] == name]
        faults.append(Fault(where, "no policy of that instance", ABSENT, close_match(rest.split(".")[0], {*names})))
    elif section in SECTIONS:
        entries = _section(mapping, section)
        name, key = _longest(rest, [str(entry) for entry in entries])
        if name and key:
            return [_deep(entries[name], key)]
        faults.append(Fault(where, f"no such entry in '{section}'", ABSENT, close_match(rest.split(".")[0], entries)))
    else:
        faults.append(Fault(where, "unknown section", ABSENT, close_match(section, (*SECTIONS, "policies"))))
    return []


def _of_quantizer(path: str) -> bool:
    return path.startswith(PER_LAYER) and path.rpartition(".")[2] in _OF_QUANTIZER


def _overrides(mapping: Body, path: str, where: str, faults: list[Fault]) -> list[Body]:
    """What the quantizer that acts says of a weight's layer alone, made first of its overrides: the first counts."""
    weight, _, key = path.removeprefix(PER_LAYER).rpartition(".")
    layer = without_module_prefix(weight).rpartition(".")[0]
    acting = {name for kind, name in map(_policy_instance, _policies(mapping)) if kind == "quantizer"}
    bodies = [body for name, body in _section(mapping, "quantizers").items() if str(name) in acting]
    if not bodies:
        way_out = "add one to its quantizers, and a policy of it"
        faults.append(Fault(where, "no quantizer of the schedule acts", ABSENT, way_out))
    found = []
    for body in bodies:
        said = body.get("overrides")
        said = cast(dict[str, Body], said if isinstance(said, dict) else {})
        pattern = re.escape(layer)
        own: Body = {key: body.get(key), **dict(said.get(_matching(said, layer)) or {})}
        body["overrides"] = {pattern: own, **{name: other for name, other in said.items() if name != pattern}}
        found.append(own)
    return found


def _matching(said: Mapping[str, object], layer: str) -> str:
    """The first pattern that matches the name of a layer; "" where none does."""
    for pattern in said:
        try:
            if re.fullmatch(str(pattern), layer):
                return str(pattern)
        except re.error:  # the quantizer says so
            continue
    return ""


class _Layers:
    """A schedule that is split into one pruner a weight: its pruners and policies by the weight they are for."""

    def __init__(self, mapping: Mapping[str, object]) -> None:
        self._pruners = _section(mapping, "pruners")
        self._by_weight: dict[str, list[str]] = {}
        for name in self._pruners:
            if "/" in str(name):
                self._by_weight.setdefault(str(name).partition("/")[2], []).append(name)
        self._policies: dict[str, list[Body]] = {}
        for policy in _policies(mapping):
            self._policies.setdefault(_policy_instance(policy)[1], []).append(policy)

    def named(self, path: str) -> tuple[str, str]:
        """(weight, argument) that a path stands for; the path, or the file, may say DataParallel's names."""
        rest = path.removeprefix(PER_LAYER)
        found = _longest_of(rest, self._by_weight)
        return found if found[0] else _longest_of(without_module_prefix(rest), self._by_weight)

    def targets(self, path: str, named: tuple[str, str], where: str, faults: list[Fault]) -> list[tuple[Body, str]]:
        weight, key = named
        if weight not in self._by_weight:  # known by the model's own name
            weight = without_module_prefix(weight)
        if not key or weight not in self._by_weight:
            asked = path.removeprefix(PER_LAYER).rpartition(".")[0]
            way_out = close_match(asked, self._by_weight)
            faults.append(Fault(where, "no pruner of the schedule holds this weight", ABSENT, way_out))
            return []
        holders = self._by_weight[weight]
        if key in _FIELDS:
            return [(policy, key) for name in holders for policy in self._policies.get(str(name), [])]
        bodies = [self._pruners[name] for name in holders]
        if key in ("level", "levels") and "levels" in bodies[0]:
            levels = [cast(Body, body["levels"]) for body in bodies]
            return [(of_one, next(iter(of_one))) for of_one in levels]
        return [(body, key) for body in bodies]


def _policy_instance(policy: Mapping[str, object]) -> tuple[str, str]:
    for kind in KINDS:
        reference = policy.get(kind)
        if isinstance(reference, dict):
            return kind, str(reference.get("instance_name"))
    return "", ""


def _field(policy: Body, key: str) -> tuple[Body, str]:
    if key in _FIELDS:
        return policy, key
    reference = cast(Body, policy[_policy_instance(policy)[0]])
    return cast(Body, reference.setdefault("args", {})), key


def _longest(rest: str, names: list[str]) -> tuple[str, str]:
    """Split ``NAME.KEY`` where NAME may hold dots: the longest known name that `rest` begins with."""
    fitting = [name for name in names if rest.startswith(f"{name}.")]
    name = max(fitting, key=len, default="")
    return name, rest[len(name) + 1 :]


def _longest_of(rest: str, names: Mapping[str, object]) -> tuple[str, str]:
    """`_longest` where there are many names: the splits of `rest` are looked up, from the last dot on."""
    name = rest.rpartition(".")[0]
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name, rest[len(name) + 1 :]


def _deep(body: Body, key: str) -> tuple[Body, str]:
    """Follow ``levels.conv1.weight`` into nested mappings; a leaf may be new, a mapping on the way may not."""
    head, _, rest = key.partition(".")
    inner = body.get(head)
    if rest and isinstance(inner, dict):
        name, deeper = _longest(rest, [str(entry) for entry in inner if isinstance(inner[entry], dict)])
        return _deep(inner[name], deeper) if name and deeper else (inner, rest)
    return body, key
