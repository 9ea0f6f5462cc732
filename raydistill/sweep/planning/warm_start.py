"""Knowledge to begin a search from: what the entries of ``warm_start`` come to in this sweep's space.

A searched value that an entry does not name takes its *default*: the schedule's own value, or the training section's,
where the distribution could draw it; else the distribution's middle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.records import Scalar
from raydistill.schedule import ScheduleSpec, read_value
from raydistill.search import Dimension, SearchSpace, from_text, middle, nearest, typed
from raydistill.search.distributions import looks_like_number, text_number
from raydistill.sweep.file.load import TRAINING, TRUNK, Sweep
from raydistill.sweep.file.warm_entries import ScheduleEntry, SweepEntry, ValuesEntry
from raydistill.sweep.planning.seeds import Seed, Seeds
from raydistill.tracking.keys import key


@dataclass(frozen=True)
class WarmStart:
    """One trial to begin with.

    values: by key path, in the space's order; all of them and inside the space, except with a `schedule`: there only
    what could be read off it, perhaps outside the bounds. schedule: is trained as it is; None stands for the sweep's
    own with the values put in. origin: where it is from, in words. warnings: lines that the user should see.
    """

    values: Mapping[str, Scalar]
    schedule: ScheduleSpec | None
    origin: str
    warnings: tuple[str, ...] = ()


def resolve_warm_starts(sweep: Sweep, space: SearchSpace, seeds: Seeds | None) -> tuple[WarmStart, ...]:
    """The trials to begin with, in the file's order.

    seeds: what `find_seeds` found, or the journal kept; None leaves the sweep entries out, to check all the others.
    Whether a schedule fits the model is checked where trials are planned.

    Raises:
        ConfigError: unknown paths, values that the space does not have; everything together.
    """
    faults: list[Fault | str] = []
    starts: list[WarmStart] = []
    for i, entry in enumerate(sweep.warm_start):
        where = f"{sweep.file}: warm_start[{i}]"
        if isinstance(entry, ValuesEntry):
            starts.append(_from_values(entry.values, sweep, space, where, i, faults))
        elif isinstance(entry, ScheduleEntry):
            starts.append(_from_schedule(entry.schedule, sweep, space, where))
        elif isinstance(entry, SweepEntry) and seeds is not None:
            starts += _from_sweep(entry, seeds[i], sweep, space, where, faults)
    if faults:
        raise ConfigError(*faults)
    return tuple(starts)


def default_value(dimension: Dimension, sweep: Sweep) -> Scalar:
    """What a searched value is where nothing is known; see the module."""
    value = typed(dimension.distribution, _written(dimension, sweep, sweep.schedule))
    return middle(dimension.distribution) if value is None else value


def _written(dimension: Dimension, sweep: Sweep, schedule: ScheduleSpec) -> object:
    if dimension.path.startswith(TRAINING):
        return getattr(sweep.sections.training, dimension.path.removeprefix(TRAINING))
    return ABSENT if dimension.path.startswith(TRUNK) else read_value(schedule.mapping, dimension.path)


def _from_values(
    values: Mapping[str, Scalar], sweep: Sweep, space: SearchSpace, where: str, index: int, faults: list[Fault | str]
) -> WarmStart:
    dimensions = {name: d for d in space.dimensions for name in (d.path, key(d.path))}
    given: dict[str, Scalar] = {}
    for path, value in values.items():
        dimension = dimensions.get(path)
        if dimension is None:
            way_out = close_match(path, [d.path for d in space.dimensions])
            faults.append(Fault(f"{where}.{path}", "is not searched", ABSENT, way_out))
            continue
        found = typed(dimension.distribution, value)
        if found is not None:
            given[dimension.path] = found
        elif isinstance(value, str) and looks_like_number(value):
            faults.append(text_number(f"{where}.{path}", value))
        else:
            rule = f"must be one that the search can draw, {dimension.distribution.describe()}"
            faults.append(Fault(f"{where}.{path}", rule, value, "change it, or widen 'search'"))
    return WarmStart(_completed(given, sweep, space), None, f"warm_start[{index}]")


def _from_schedule(schedule: ScheduleSpec, sweep: Sweep, space: SearchSpace, where: str) -> WarmStart:
    values: dict[str, Scalar] = {}
    unread, outside = [], []
    for dimension in space.dimensions:
        written = _written(dimension, sweep, schedule)
        if not isinstance(written, bool | int | float | str) or nearest(dimension.distribution, written) is None:
            unread.append(dimension.path)
            continue
        inside = typed(dimension.distribution, written)
        if inside is None:
            outside.append(f"{dimension.path} {written} ({dimension.distribution.describe()})")
        values[dimension.path] = written if inside is None else inside
    warnings = []
    if outside:
        warnings.append(f"{where}: {schedule.source} lies outside the search: {_some(outside)}")
    if unread:
        warnings.append(f"{where}: {schedule.source} does not say {_some(unread)}; it is trained all the same")
    return WarmStart(values, schedule, f"schedule {schedule.source}", tuple(warnings))


def _from_sweep(
    entry: SweepEntry,
    seeds: Sequence[Seed],
    sweep: Sweep,
    space: SearchSpace,
    where: str,
    faults: list[Fault | str],
) -> list[WarmStart]:
    dimensions = {key(dimension.path): dimension for dimension in space.dimensions}
    searched = list(dict.fromkeys(name for seed in seeds for name in seed.params))
    shared = [name for name in searched if name in dimensions]
    if not shared:
        rule = "searched nothing that is searched here"
        faults.append(Fault(f"{where}.sweep", rule, entry.sweep, f"it searched {_some(searched) or 'nothing'}"))
        return []
    starts, moved = [], []
    for seed in seeds:
        given: dict[str, Scalar] = {}
        for name in (name for name in shared if name in seed.params):
            dimension = dimensions[name]
            value = from_text(dimension.distribution, seed.params[name])
            near = None if value is None else nearest(dimension.distribution, value)
            if near is None:
                near = default_value(dimension, sweep)
            if near != value:
                moved.append(f"{seed.trial_id}'s {dimension.path} {seed.params[name]} to {near}")
            given[dimension.path] = near
        starts.append(WarmStart(_completed(given, sweep, space), None, f"sweep {entry.sweep} {seed.trial_id}"))
    unknown = [name for name in searched if name not in dimensions]
    missing = [d.path for name, d in dimensions.items() if name not in searched]
    scheduled = [seed.trial_id for seed in seeds if seed.scheduled]
    about = f"{where}: sweep '{entry.sweep}'"
    warnings = []
    if unknown:
        warnings.append(f"{about} searched {_some(unknown)}, not searched here and left out")
    if missing:
        shown = [f"{path} {default_value(dimensions[key(path)], sweep)}" for path in missing]
        warnings.append(f"{about} did not search all that is searched here; taken instead: {_some(shown)}")
    if moved:
        warnings.append(f"{about} has values outside the search, moved: {_some(moved)}")
    if scheduled:
        warnings.append(f"{about} trained {_some(scheduled)} by hand-written schedules; only their values are taken")
    starts[0] = replace(starts[0], warnings=tuple(warnings))
    return starts


def _completed(given: Mapping[str, Scalar], sweep: Sweep, space: SearchSpace) -> dict[str, Scalar]:
    return {d.path: given[d.path] if d.path in given else default_value(d, sweep) for d in space.dimensions}


def _some(items: Sequence[str], at_most: int = 3) -> str:
    shown = ", ".join(items[:at_most])
    return shown if len(items) <= at_most else f"{shown} and {len(items) - at_most} more"
