"""The entries of ``warm_start`` as written: values by key path, a schedule file, a finished sweep, or ``auto``.

What they come to in this sweep's space is `warm_start`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.records import Scalar
from raydistill.schedule import ScheduleSpec, load_schedule
from raydistill.sweep.file.faults import validate
from raydistill.sweep.file.spec import AUTO, WarmSweepSection, beside

LEAST_POOL, MOST_POOL = 16, 10_000


@dataclass(frozen=True)
class ValuesEntry:
    """values: by key path, perhaps not all that are searched."""

    values: Mapping[str, Scalar]

    def said(self) -> dict[str, Any]:
        return dict(self.values)


@dataclass(frozen=True)
class ScheduleEntry:
    """A schedule that is trained as it is."""

    schedule: ScheduleSpec

    def said(self) -> dict[str, Any]:
        return dict(self.schedule.mapping)


@dataclass(frozen=True)
class SweepEntry:
    """At most `top` trials of another sweep; see `WarmSweepSection`."""

    sweep: str
    tracking_uri: str | None
    top: int

    def said(self) -> dict[str, Any]:
        return {"sweep": self.sweep, "tracking_uri": self.tracking_uri, "top": self.top}


@dataclass(frozen=True)
class AutoEntry:
    """Trials whose levels follow from what the dense network's layers lose, behind all other starts. pool: they are the
    best of so many that are pruned at once; 0: they follow from the layers alone."""

    pool: int = 0

    def said(self) -> Any:
        return {AUTO: self.pool} if self.pool else AUTO


Entry = ValuesEntry | ScheduleEntry | SweepEntry | AutoEntry


def parse_entries(node: object, file: Path) -> tuple[Entry, ...]:
    """Read the ``warm_start`` section of `file`.

    Raises:
        ConfigError: with the faults of all entries together.
    """
    where = f"{file}: warm_start"
    node = [node] if node == AUTO or (isinstance(node, Mapping) and AUTO in node) else node
    if not isinstance(node, list) or not node:
        way_out = "auto, or list schedule files, values by key path or {sweep: NAME, top: 5}, or leave it out"
        raise ConfigError(Fault(where, "must be a list of at least one start", node, way_out))
    faults: list[Fault | str] = []
    entries = []
    for i, entry in enumerate(node):
        try:
            entries.append(_entry(entry, file, i))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(*faults)
    return tuple(entries)


def auto_of(entries: Sequence[Entry]) -> AutoEntry | None:
    return next((entry for entry in entries if isinstance(entry, AutoEntry)), None)


def trials_of(entries: Sequence[Entry]) -> int:
    """How many trials they begin at most; of ``auto``, which begins as many as there is room for, none."""
    return sum(entry.top if isinstance(entry, SweepEntry) else not isinstance(entry, AutoEntry) for entry in entries)


def schedule_file(file: Path, path: str, where: str) -> ScheduleSpec:
    """The schedule at a path that `file` names under `where`; its faults say the path as it is written there.

    Raises:
        ConfigError: no such file, or it is not a schedule.
    """
    found = beside(file, path)
    if not found.is_file():
        near = [entry.name for entry in found.parent.glob("*.y*ml")] if found.parent.is_dir() else []
        way_out = close_match(found.name, near) if near else "paths are relative to the sweep file"
        raise ConfigError(Fault(where, "no such schedule file", path, way_out))
    return load_schedule(found, source=path)


def _entry(node: object, file: Path, index: int) -> Entry:
    where = f"{file}: warm_start[{index}]"
    if node == AUTO:
        return AutoEntry()
    if isinstance(node, Mapping) and AUTO in node:
        return _pool_of(node, where)
    if isinstance(node, str):
        return ScheduleEntry(schedule_file(file, node, where))
    if not isinstance(node, Mapping) or not node:
        way_out = "as in {per_layer.fc1.weight.final_sparsity: 0.9}"
        raise ConfigError(Fault(where, "must be values by key path, a schedule file or a sweep", node, way_out))
    if "sweep" in node or not any("." in str(key) for key in node):
        section, faults = validate(WarmSweepSection, dict(node), str(file), f"warm_start[{index}]")
        if faults:
            raise ConfigError(*faults)
        return SweepEntry(section.sweep, section.tracking_uri, section.top)
    faults = []
    for path, value in node.items():
        finite = isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))
        if not finite:
            shown = ABSENT if value is None else value
            faults.append(Fault(f"{where}.{path}", "must be a finite number, text, true or false", shown))
    if faults:
        raise ConfigError(*faults)
    return ValuesEntry({str(path): value for path, value in node.items()})


def _pool_of(node: Mapping[str, Any], where: str) -> AutoEntry:
    pool = node[AUTO]
    if len(node) > 1:
        raise ConfigError(Fault(where, "auto stands alone in its entry", dict(node), f"as in {{{AUTO}: 100}}"))
    if isinstance(pool, bool) or not isinstance(pool, int) or not LEAST_POOL <= pool <= MOST_POOL:
        rule = f"must be a whole number from {LEAST_POOL} to {MOST_POOL}: how many are pruned at once to choose from"
        raise ConfigError(Fault(f"{where}.{AUTO}", rule, pool, f"as in {{{AUTO}: 100}}"))
    return AutoEntry(pool)
