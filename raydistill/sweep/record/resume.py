"""May this sweep be started here, or go on here? Decided from the journal before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from raydistill.errors import ABSENT, ConfigError, Fault, short
from raydistill.masking import is_masked, masked_all
from raydistill.parts import Role, Setting
from raydistill.search.searchers.base import ALL
from raydistill.sweep.file.faults import section_of
from raydistill.sweep.file.spec import Menu, SearcherSection, SweepSections, TrialSchedulerSection
from raydistill.sweep.planning.plan import Plan
from raydistill.sweep.record.journal import History

JOURNAL = "journal.jsonl"


def _may_change(section: type[BaseModel], prefix: str = "") -> tuple[str, ...]:
    """Key paths of what a resumed sweep may say otherwise: none of it changes what a trial is."""
    found: list[str] = []
    for name, field in section.model_fields.items():
        if any(isinstance(said, Setting) and said.role is Role.FREE for said in field.metadata):
            found.append(f"{prefix}{name}")
        else:
            inside = section_of(field.annotation)
            found += _may_change(inside, f"{prefix}{name}.") if inside is not None else ()
    return tuple(found)


def check_start(folder: Path | str, history: History, resume: bool) -> None:
    """Raises ConfigError where ``--resume`` is missing, or has nothing to resume."""
    if resume and history.start is None:
        way_out = "leave --resume out to start it"
        raise ConfigError(Fault("--resume", f"there is no sweep in {folder}", ABSENT, way_out))
    if not resume and history.start is not None:
        way_out = "add --resume to go on with it, or --name NAME to start another"
        raise ConfigError(Fault(str(folder), "holds a sweep already", ABSENT, way_out))


def check_gone(kept: str, history: History, left: Sequence[str]) -> None:
    """Raises ConfigError where a sweep has left everything but its journal: it would be run over its own results.

    left: what is there of its results, by name.
    """
    if history.start is None and left:
        rule = f"holds no journal, but results of a sweep ({', '.join(left[:3])}{', ...' if len(left) > 3 else ''})"
        way_out = f"bring {JOURNAL} back from a copy and add --resume, or start another sweep with --name NAME"
        raise ConfigError(Fault(kept, rule, ABSENT, way_out))


def check_same(
    file: Path, history: History, config: Mapping[str, object], dataset: Mapping[str, object], plan: Plan
) -> None:
    """Raises ConfigError naming everything in which a resumed sweep differs from the one that was started."""
    if history.start is None:
        return
    way_out = "change it back, or start another sweep with --name NAME"
    faults, free = [], _may_change(SweepSections)
    started_at, now_at = (_tracking_uri(said) for said in (history.start["config"], config))
    if now_at is None and is_masked(started_at or ""):
        rule = f"is needed again: the sweep was started with {started_at}, and its password is not kept"
        faults.append(Fault("--tracking-uri", rule, ABSENT, "give it, or set MLFLOW_TRACKING_URI"))
    for path, old, new in differences(masked_all(_completed(history.start["config"])), config):
        if path == "num_samples" and isinstance(new, int) and isinstance(old, int) and new < old:
            faults.append(Fault(f"{file}: {path}", f"may grow on --resume, not shrink (it was {old})", new))
        elif not any(path == key or path.startswith((f"{key}.", f"{key}[")) for key in free):
            faults.append(Fault(f"{file}: {path}", f"must be as the sweep was started ({short(old)})", new, way_out))
    started_with = history.start["dataset"]
    if not faults and started_with["fingerprint"] != dataset["fingerprint"]:
        rule = f"must be the one the sweep was started with ({started_with['name']}, {started_with['fingerprint']})"
        found = f"{dataset['name']}, {dataset['fingerprint']}"
        faults.append(Fault(f"{file}: dataset", rule, found, "bring those data back, or use --name NAME"))
    if not faults and plan.searcher.startup >= ALL:  # what one that learns draws depends on num_samples, which may grow
        values = {trial.trial_id: dict(trial.values) for trial in plan.trials}
        for trial_id, record in history.records.items():
            if trial_id in values and values[trial_id] != dict(record.values):
                rule = "was drawn by another version of raydistill, its values differ"
                faults.append(Fault(f"trial {trial_id}", rule, ABSENT, "start another sweep with --name NAME"))
    if faults:
        raise ConfigError(*faults)


def _tracking_uri(config: Mapping[str, Any]) -> str | None:
    uri: str | None = config.get("tracking", {}).get("uri")
    return uri


def _completed(config: Mapping[str, object]) -> Mapping[str, object]:
    """What a sweep was started with, and what this version adds to it: the defaults of sections that are newer."""
    said: dict[str, Any] = dict(config)
    menus: dict[str, type[Menu]] = {"searcher": SearcherSection, "trial_scheduler": TrialSchedulerSection}
    methods = {key: kind.of_journal(said.pop(key)) for key, kind in menus.items() if key in said}
    try:
        sections = SweepSections.model_validate(said).model_copy(update=methods)
    except ValidationError:  # it differs in more than what is new
        return config
    today = sections.model_dump(mode="json")
    return {**today, **{key: config[key] for key in ("schedule", "warm_start") if key in config}}


def differences(old: object, new: object, path: str = "") -> Iterator[tuple[str, object, object]]:
    """(key path, old value, new value) of every leaf that differs."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            below = f"{path}.{key}" if path else str(key)
            yield from differences(old.get(key), new.get(key), below)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, after, f"{path}[{index}]")
    elif old != new:
        yield path, old, new
