"""Which parts of a model a section of a file means: by name, by glob (``conv*.weight``), by regular expression
(``re:conv\\d+\\.weight``), by the type of the layer that holds them, and by exclusion.

A pattern has to match a whole name. It means weights of two or more dimensions (and layers); where it matches none of
these, what else is called weight (the scales of norms), and where there is none, other parameters. A wrapper's part of
a name (DataParallel's ``module``) need not be said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from raydistill.errors import ABSENT, ConfigError, Fault, close_match

WEIGHTS, TYPES, EXCEPT = "weights", "types", "except"
NARROWING = (TYPES, EXCEPT)
"""What says less than the names beside it."""

REGEX = "re:"
"""What a regular expression begins with."""

_WRAPPERS = ("module", "_orig_mod")
_GLOB_MARKS = frozenset("*?[")
_LONGEST = 500
_REPEATED_REPEAT = re.compile(r"[*+}]\)?[*+{]|\([^()]*[*+}][^()]*\)[*+{]")


@dataclass(frozen=True)
class Named:
    """A parameter, or a layer. types: the classes of its layer, the nearest first. weight: False: patterns mean it only
    where they match no other."""

    name: str
    types: tuple[str, ...] = ()
    weight: bool = True


@dataclass(frozen=True)
class Targets:
    """What a section says. entries: names and patterns; None: all. types, excluded: () where nothing is said."""

    entries: tuple[str, ...] | None = None
    types: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    @property
    def narrowed(self) -> bool:
        return bool(self.types or self.excluded)

    def by_entry(self, offered: Sequence[Named], where: str, strict: bool = False) -> list[tuple[str, list[str]]]:
        """The names that each entry stands for, in the order of `offered`. where: the section. strict: a name that is
        not there is a fault; if not, it stands for itself.

        Raises:
            ConfigError: a pattern matches nothing, no layer is of a type, an exclusion excludes nothing or all; each.
        """
        place = f"{where}.{WEIGHTS if self.entries is not None else TYPES}"
        faults = [*self._strange_types(offered, where), *entry_faults(self.entries or (), place)]
        if faults:
            raise ConfigError(*faults)
        fitting = [one for one in offered if not self.types or not _short(self.types).isdisjoint(one.types)]
        found: list[tuple[str, list[str]]] = []
        for entry in ("*",) if self.entries is None else self.entries:
            names = self._names(entry, offered, fitting, strict)
            if not names:
                faults.append(self._nothing(entry, offered, place))
            found.append((entry, names))
        if faults:
            raise ConfigError(*faults)
        return self._without_excluded(found, where)

    def names(self, offered: Sequence[Named], where: str, strict: bool = False) -> list[str]:
        """As `by_entry`, each name once."""
        return list(dict.fromkeys(name for _, names in self.by_entry(offered, where, strict) for name in names))

    def _names(self, entry: str, offered: Sequence[Named], fitting: Sequence[Named], strict: bool = True) -> list[str]:
        if not is_pattern(entry):
            own = [one for one in offered if one.name == entry] or [o for o in offered if bare(o.name) == bare(entry)]
            return [one.name for one in own if one in fitting] if own or strict else [entry]
        matches = matcher(entry)
        found = [one for one in fitting if matches(one.name)]
        kept = [one for one in found if one.weight] or [one for one in found if one.name.endswith("weight")] or found
        return [one.name for one in kept]

    def _strange_types(self, offered: Sequence[Named], where: str) -> list[Fault]:
        known = {kind for one in offered for kind in one.types}
        own = {one.types[0] for one in offered if one.types}
        return [
            Fault(f"{where}.{TYPES}", "no layer of the model is of this type", kind, close_match(kind, own))
            for kind in self.types
            if _short((kind,)).isdisjoint(known)
        ]

    def _nothing(self, entry: str, offered: Sequence[Named], where: str) -> Fault:
        if self.types and Targets(self.entries)._names(entry, offered, offered):
            rule = f"nothing of it is in a layer of type {' or '.join(self.types)}"
            return Fault(where, rule, entry, f"leave it out, or name its type in '{TYPES}'")
        held = [one.name for one in offered if one.weight]
        return Fault(where, "no weight of the model matches", entry, close_match(entry, held))

    def _without_excluded(self, found: list[tuple[str, list[str]]], where: str) -> list[tuple[str, list[str]]]:
        taken = list(dict.fromkeys(name for _, names in found for name in names))
        out: set[str] = set()
        faults = []
        for entry in self.excluded:
            matches = matcher(entry)
            hit = {name for name in taken if matches(name)}
            if not hit:
                rule = "excludes nothing of what the section takes"
                faults.append(Fault(f"{where}.{EXCEPT}", rule, entry, close_match(entry, taken)))
            out |= hit
        if not faults and out and out.issuperset(taken):
            rule = "excludes all that the section takes"
            faults.append(Fault(f"{where}.{EXCEPT}", rule, list(self.excluded), "leave something"))
        if faults:
            raise ConfigError(*faults)
        return [(entry, [name for name in names if name not in out]) for entry, names in found]


def narrowing(args: Mapping[str, object], where: str) -> tuple[dict[str, object], Targets]:
    """The arguments without ``types`` and ``except``, and what these say.

    Raises:
        ConfigError: one of them is no list of texts, or holds a regular expression that cannot be used.
    """
    said: dict[str, tuple[str, ...]] = {}
    faults: list[Fault] = []
    for key, example in ((TYPES, "[Conv2d]"), (EXCEPT, "['*.downsample.*']")):
        value = args.get(key, ())
        entries = (value,) if isinstance(value, str) else value
        if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, str) and entry for entry in entries):
            faults.append(Fault(f"{where}.{key}", "must be a list of names", value, f"such as {example}"))
            continue
        if key in args and not entries:
            faults.append(Fault(f"{where}.{key}", "is empty", ABSENT, f"leave it out, or say such as {example}"))
        faults += entry_faults(entries, f"{where}.{key}")
        said[key] = tuple(entries)
    if faults:
        raise ConfigError(*faults)
    return {key: value for key, value in args.items() if key not in said}, Targets(None, said[TYPES], said[EXCEPT])


def is_pattern(entry: object) -> bool:
    return isinstance(entry, str) and (entry.startswith(REGEX) or not _GLOB_MARKS.isdisjoint(entry))


def matcher(entry: str) -> Callable[[str], bool]:
    """Whether a name is what a name, a glob or a regular expression stands for."""
    if entry.startswith(REGEX):
        regex = re.compile(entry.removeprefix(REGEX))
        return lambda name: bool(regex.fullmatch(name) or regex.fullmatch(bare(name)))
    short = bare(entry)
    if not is_pattern(entry):
        return lambda name: name == entry or bare(name) == short
    return lambda name: fnmatchcase(name, entry) or fnmatchcase(bare(name), short)


def entry_faults(entries: Iterable[object], where: str) -> list[Fault]:
    """Of the regular expressions among these."""
    return [
        fault
        for entry in entries
        if isinstance(entry, str) and entry.startswith(REGEX)
        for fault in regex_faults(entry.removeprefix(REGEX), where)
    ]


def regex_faults(pattern: str, where: str) -> list[Fault]:
    """What keeps a text from being used as a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        return [Fault(where, f"is no regular expression ({error})", pattern)]
    if len(pattern) > _LONGEST or _REPEATED_REPEAT.search(pattern):
        return [Fault(where, "may take for ever to match", pattern, "repeat nothing that repeats by itself")]
    return []


def bare(name: str) -> str:
    """A name without the parts that wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS) or name


def _short(types: Iterable[str]) -> set[str]:
    """Classes by their own names: ``torch.nn.Conv2d`` is ``Conv2d``."""
    return {kind.rpartition(".")[2] for kind in types}
