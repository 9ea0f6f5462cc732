"""Globs in a pruner's ``weights``: ``conv*.weight`` stands for every weight of the model that it matches."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from raydistill.errors import ConfigError, Fault, close_match

_MARKS = frozenset("*?[")


def matching(entries: Any, weight_names: Sequence[str], where: str) -> Any:
    """The entries of a ``weights`` list, globs replaced by what they match, each weight once; anything else as it is.

    Raises:
        ConfigError: a glob matches no weight.
    """
    if not isinstance(entries, list) or not any(_is_glob(entry) for entry in entries):
        return entries
    found: list[Any] = []
    faults = []
    for entry in entries:
        names = [name for name in weight_names if fnmatchcase(name, entry)] if _is_glob(entry) else [entry]
        if not names:
            faults.append(Fault(where, "no weight of the model matches", entry, close_match(entry, weight_names)))
        found += [name for name in names if name not in found or not _is_glob(entry)]
    if faults:
        raise ConfigError(*faults)
    return found


def without_globs(mapping: Mapping[str, Any], weight_names: Sequence[str], source: str) -> dict[str, Any]:
    """A copy of a schedule's mapping in which every pruner names its weights.

    Raises:
        ConfigError: globs that match no weight, all of them.
    """
    result = copy.deepcopy(dict(mapping))
    faults: list[Fault | str] = []
    pruners = result.get("pruners")
    for name, body in (pruners if isinstance(pruners, dict) else {}).items():
        if isinstance(body, dict) and "weights" in body:
            try:
                body["weights"] = matching(body["weights"], weight_names, f"{source}: pruners.{name}.weights")
            except ConfigError as error:
                faults += error.faults
    if faults:
        raise ConfigError(*faults)
    return result


def _is_glob(entry: Any) -> bool:
    return isinstance(entry, str) and not _MARKS.isdisjoint(entry)
