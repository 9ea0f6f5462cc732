"""Globs in a pruner's ``weights``, and as keys where a mapping says something of each weight (``levels``,
``sensitivities``, ``reg_regims``): ``conv*.weight`` stands for every weight of the model that it matches.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from raydistill.errors import ConfigError, Fault, close_match

WITH_WEIGHTS = ("pruners", "regularizers")
"""Of a schedule, in which weights are named."""

_MARKS = frozenset("*?[")


def matching(entries: object, weight_names: Sequence[str], where: str) -> object:
    """A list's entries or a mapping's keys, globs replaced by what they match, each weight once; anything else as it
    is. In a mapping a weight's own name counts before a glob, and a glob before those that stand below it.

    Raises:
        ConfigError: a glob matches no weight.
    """
    if not isinstance(entries, (list, dict)) or not any(_is_glob(entry) for entry in entries):
        return entries
    found: list[object] = []
    values: dict[object, object] = {}
    faults = []
    for entry in entries:
        names = [name for name in weight_names if fnmatchcase(name, entry)] if _is_glob(entry) else [entry]
        if not names:
            faults.append(Fault(where, "no weight of the model matches", entry, close_match(entry, weight_names)))
        found += [name for name in names if name not in found or not _is_glob(entry)]
        if isinstance(entries, dict):
            for name in names:
                values.setdefault(name, entries.get(name, entries[entry]))
    if faults:
        raise ConfigError(*faults)
    return values if isinstance(entries, dict) else found


def each_named(args: Mapping[str, object], weight_names: Sequence[str], where: str) -> dict[str, object]:
    """The arguments of a pruner or a regularizer without globs. where: what stands above them.

    Raises:
        ConfigError: globs that match no weight, all of them.
    """
    result = dict(args)
    faults: list[Fault | str] = []
    for key, value in args.items():
        if key == "weights" or isinstance(value, dict):
            try:
                result[key] = matching(value, weight_names, f"{where}.{key}")
            except ConfigError as error:
                faults += error.faults
    if faults:
        raise ConfigError(*faults)
    return result


def without_globs(mapping: Mapping[str, object], weight_names: Sequence[str], source: str) -> dict[str, object]:
    """A copy of a schedule's mapping in which every pruner and regularizer names its weights.

    Raises:
        ConfigError: globs that match no weight, all of them.
    """
    result = copy.deepcopy(dict(mapping))
    faults: list[Fault | str] = []
    for section in WITH_WEIGHTS:
        bodies = result.get(section)
        if not isinstance(bodies, dict):
            continue
        for name, body in bodies.items():
            if isinstance(body, dict):
                try:
                    bodies[name] = each_named(body, weight_names, f"{source}: {section}.{name}")
                except ConfigError as error:
                    faults += error.faults
    if faults:
        raise ConfigError(*faults)
    return result


def _is_glob(entry: object) -> bool:
    return isinstance(entry, str) and not _MARKS.isdisjoint(entry)
