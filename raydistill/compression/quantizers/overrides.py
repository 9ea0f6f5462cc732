"""How many bits each part of a network gets: a default, and what regular expressions of names say otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raydistill.compression.quantizers.grid import FLOAT_BITS
from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.schedule.naming import BITS
from raydistill.schedule.targets import regex_faults


@dataclass(frozen=True)
class Overrides:
    """patterns: by the regular expression that a whole name has to match, what it is given in place of the defaults;
    the first that matches counts."""

    defaults: Mapping[str, Any]
    patterns: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def of(self, name: str) -> Mapping[str, Any]:
        """What counts for the module, or the call, of this name."""
        for pattern, said in self.patterns.items():
            if re.fullmatch(pattern, name):
                return {**self.defaults, **said}
        return self.defaults

    def idle(self, names: Iterable[str]) -> list[str]:
        """The patterns that none of these names matches."""
        present = list(names)
        return [pattern for pattern in self.patterns if not any(re.fullmatch(pattern, name) for name in present)]


def checked_bits(argument: str, value: object, least: int = 1) -> int | None:
    """A number of bits, or None for a float, which one of 32 bits is too; ConfigError otherwise."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= FLOAT_BITS:
        rule = f"must be a whole number from {least} to {FLOAT_BITS}, or null to leave floats"
        raise ConfigError(Fault(argument, rule, value, "such as 8"))
    return None if value == FLOAT_BITS else value


def checked_overrides(value: object, defaults: Mapping[str, object], known: Iterable[str], least: int = 1) -> Overrides:
    """What a file says of single layers, its bits checked; ConfigError otherwise. known: the keys beside the bits."""
    if value is None:
        return Overrides(defaults)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(Fault("overrides", "must map names to what holds for them", value, "such as {conv1: {...}}"))
    keys = (*BITS, *known)
    faults: list[Fault] = []
    patterns: dict[str, dict[str, object]] = {}
    for pattern, said in value.items():
        where = f"overrides.{pattern}"
        faults += regex_faults(pattern, where)
        if not isinstance(said, Mapping):
            faults.append(Fault(where, "must map arguments to values", said, "such as {bits_weights: 4}"))
            continue
        faults += [
            Fault(f"{where}.{key}", "unknown key", ABSENT, close_match(str(key), keys))
            for key in said
            if key not in keys
        ]
        try:
            bits = {key: checked_bits(f"{where}.{key}", said[key], least) for key in BITS if key in said}
        except ConfigError as error:
            faults += [fault for fault in error.faults if isinstance(fault, Fault)]
            continue
        patterns[pattern] = {**said, **bits}
    if faults:
        raise ConfigError(*faults)
    return Overrides(defaults, patterns)
