"""What a schedule says of parts of a model by patterns, types and exclusions, said by the parts' names instead.

Weights are named by an argument ``weights`` and by the keys of mappings that say something of each weight (``levels``,
``sensitivities``, ``reg_regims``); ``types`` and ``except`` beside them narrow what these mean. Quantizers name layers.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from raydistill.errors import ConfigError, Fault
from raydistill.schedule.targets import REGEX, WEIGHTS, Named, Targets, is_pattern, narrowing

BITS = ("bits_weights", "bits_activations", "bits_bias")
"""What a quantizer says of a layer; None: it stays in floats."""


@dataclass(frozen=True)
class Names:
    """What of a model a file may name. weights: its parameters; layers: its modules."""

    weights: tuple[Named, ...]
    layers: tuple[Named, ...] = ()


def named_weights(args: Mapping[str, object], names: Names, where: str) -> dict[str, object]:
    """The arguments of an instance (or of a policy) without patterns, ``types`` and ``except``. where: what is above
    them. In a mapping a weight's own name counts before a pattern, and a pattern before those that stand below it.

    Raises:
        ConfigError: as `Targets.by_entry`, for all of them.
    """
    result, said = narrowing(args, where)
    holders = [key for key, value in result.items() if _names_weights(key, value, names, said.narrowed)]
    if not holders and said.narrowed and not any(_may_name(key, value) for key, value in result.items()):
        return {**result, WEIGHTS: said.names(names.weights, where)}
    faults: list[Fault | str] = []
    for key in holders:
        value = result[key]
        entries = [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
        try:
            found = _placed(replace(said, entries=tuple(entries)), names.weights, where, key)
        except ConfigError as error:
            faults += error.faults
            continue
        result[key] = _each(value, found) if isinstance(value, Mapping) else _once(found)
    if faults:
        raise ConfigError(*faults)
    return result


def named_layers(args: Mapping[str, object], names: Names, where: str) -> dict[str, object]:
    """The arguments of a quantizer: what ``types`` and ``except`` leave out becomes an override that leaves it in
    floats, and an override that they narrow one for each layer.

    Raises:
        ConfigError: as `Targets.by_entry`, for all of them.
    """
    result, said = narrowing(args, where)
    overrides = result.get("overrides")
    all_layers = [replace(layer, weight=True) for layer in names.layers]
    found: dict[object, object] = {}
    faults: list[Fault | str] = []
    if said.narrowed:
        held = [layer for layer in names.layers if layer.weight]
        try:
            taken = set(said.names(held, where))
            found = {re.escape(layer.name): dict.fromkeys(BITS) for layer in held if layer.name not in taken}
        except ConfigError as error:
            faults += error.faults
    for pattern, body in overrides.items() if isinstance(overrides, Mapping) else ():
        at = f"{where}.overrides.{pattern}"
        try:
            rest, own = narrowing(body, at) if isinstance(body, Mapping) else (body, Targets())
            if not own.narrowed:
                found.setdefault(pattern, body)
                continue
            layers = replace(own, entries=(f"{REGEX}{pattern}",)).names(all_layers, at)
        except ConfigError as error:
            faults += error.faults
            continue
        for layer in layers:
            found.setdefault(re.escape(layer), copy.deepcopy(rest))
    if faults:
        raise ConfigError(*faults)
    return {**result, "overrides": found} if found else result


_BY_SECTION: Mapping[str, Callable[[Mapping[str, object], Names, str], dict[str, object]]] = {
    "pruners": named_weights,
    "regularizers": named_weights,
    "extensions": named_weights,
    "quantizers": named_layers,
}
NARROWED = tuple(_BY_SECTION)
"""The sections in which ``types`` and ``except`` may be said."""


def named_instance(section: str, args: Mapping[str, object], names: Names, where: str) -> dict[str, object]:
    """The arguments of an instance of this section, by names alone.

    Raises:
        ConfigError: as `Targets.by_entry`.
    """
    return _BY_SECTION[section](args, names, where) if section in _BY_SECTION else dict(args)


def named_schedule(mapping: Mapping[str, object], names: Names, source: str) -> dict[str, object]:
    """A copy of a schedule's mapping in which every instance names its weights or layers.

    Raises:
        ConfigError: as `Targets.by_entry`, for all instances.
    """
    result = copy.deepcopy(dict(mapping))
    faults: list[Fault | str] = []
    for section in NARROWED:
        bodies = result.get(section)
        for name, body in bodies.items() if isinstance(bodies, dict) else ():
            if isinstance(body, dict):
                try:
                    bodies[name] = named_instance(section, body, names, f"{source}: {section}.{name}")  # type: ignore[index]
                except ConfigError as error:
                    faults += error.faults
    if faults:
        raise ConfigError(*faults)
    return result


def _names_weights(key: str, value: object, names: Names, narrowed: bool) -> bool:
    """Whether an argument names weights in a way that has to be looked up."""
    if key == WEIGHTS and isinstance(value, str):
        return narrowed or is_pattern(value)
    if not value or (not (key == WEIGHTS and isinstance(value, list)) and not isinstance(value, Mapping)):
        return False
    known = {one.name for one in names.weights} if narrowed else set()
    entries = [entry for entry in value if isinstance(entry, str)]  # type: ignore[attr-defined]
    return len(entries) == len(value) and any(is_pattern(entry) or entry in known for entry in entries)  # type: ignore[arg-type]


def _may_name(key: str, value: object) -> bool:
    """Whether an argument was meant to name weights; what is wrong with it is for the class to say."""
    return key == WEIGHTS or (isinstance(value, Mapping) and any("." in str(entry) for entry in value))


def _placed(said: Targets, offered: Sequence[Named], where: str, key: str) -> list[tuple[str, list[str]]]:
    """`Targets.by_entry`; what is wrong with the entries is said of the argument that they stand in."""
    try:
        return said.by_entry(offered, where)
    except ConfigError as error:
        at = {f"{where}.{WEIGHTS}": f"{where}.{key}"}
        raise ConfigError(
            *(replace(f, where=at.get(f.where, f.where)) if isinstance(f, Fault) else f for f in error.faults)
        ) from error


def _once(found: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Each weight once; one that is named twice by itself stays so, for the argument's own check to say."""
    result: list[str] = []
    for entry, names in found:
        result += [name for name in names if name not in result or not is_pattern(entry)]
    return result


def _each(value: Mapping[str, object], found: Sequence[tuple[str, list[str]]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for entry, names in found:
        for name in names:
            result.setdefault(name, value.get(name, value[entry]))
    return result
