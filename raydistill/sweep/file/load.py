"""A sweep file and the command's options become a `Sweep`: parsed whole, every fault reported at once.

What needs the model (weights, pruner arguments, drawn values) is checked by `plan`.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from raydistill import tasks
from raydistill.datasets.config import DatasetConfig
from raydistill.errors import ABSENT, ConfigError, Fault, RaydistillError, close_match
from raydistill.files import missing
from raydistill.masking import masked_all
from raydistill.metrics import LATENCY, Metric, selecting
from raydistill.parts import Optimizer, Training, settings
from raydistill.records import BASELINE
from raydistill.schedule import ScheduleSpec, parse_schedule, parse_yaml, read_yaml, scale_epochs
from raydistill.schedule.file_kind import SWEEP, check_kind
from raydistill.search import Dimension, Objective, PerLayer, parse_objectives, parse_space, usual_objectives
from raydistill.search.aliases import Alias, parse_aliases
from raydistill.search.constraints import Constraint, parse_constraints
from raydistill.sweep.file.automatic import Choices, as_started, chosen
from raydistill.sweep.file.expand import expanded
from raydistill.sweep.file.faults import validate
from raydistill.sweep.file.spec import (
    SearcherSection,
    SweepSections,
    TaskSection,
    TrainingSection,
    TrialSchedulerSection,
    beside,
)
from raydistill.sweep.file.warm_entries import AutoEntry, Entry, ScheduleEntry, parse_entries, schedule_file, trials_of
from raydistill.sweep.planning.methods import check_own
from raydistill.tasks import TaskConfig, metrics_of
from raydistill.training.optimizer import check_optimization

TRAINING = "training."
LOOP = "train.args."
TRUNK = "trunk."
BRANCH_AT = f"{TRUNK}sparsity"
"""What is searched of a trunk: where a trial branches off."""

_PLANNED = 0.05
"""What planned sparsity weighs in a score, beside the metric that selects: of a fraction five points, which is what one
would give for it. With thirty, early rungs kept the sparsest trials (benchmarks/search_quality.py)."""

S = TypeVar("S", TrialSchedulerSection, SearcherSection)
T = TypeVar("T")
_INLINE = re.compile(r": ((?:baseline\.)?schedule|search): ")
SCORABLE = ("train_loss", "sparsity", "planned_sparsity")
"""What a trial scheduler's score may weigh beside the task's metrics."""


@dataclass(frozen=True)
class Overrides:
    """The command's options that stand above the file; None leaves the file's value. cpu: trials get no GPU. searcher:
    a section, in whose place the file's is, where that names another method."""

    name: str | None = None
    num_samples: int | None = None
    epochs: int | None = None
    seed: int | None = None
    dataset: str | None = None
    data_dir: str | None = None
    tracking_uri: str | None = None
    cpu: bool = False
    searcher: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep file, parsed. schedule: the default one, before any drawn value. warm_start: as written, files read.
    automatic: which methods the file left to the tool, and why they are what they are; None: none.
    """

    file: Path
    sections: SweepSections
    schedule: ScheduleSpec
    dimensions: tuple[Dimension, ...]
    per_layer: tuple[PerLayer, ...]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()
    warm_start: tuple[Entry, ...] = ()
    aliases: tuple[Alias, ...] = ()
    automatic: Choices | None = None

    def as_started(self, config: Mapping[str, object]) -> Sweep:
        """With the methods that a resumed sweep was started with, where the file leaves them to the tool. config: the
        journal's."""
        if self.automatic is None:
            return self
        kept = as_started(self.automatic, config)
        warm_start = self.warm_start
        if kept.places != self.automatic.places:
            warm_start = (AutoEntry(),) if kept.places else ()
        return replace(self, automatic=kept, sections=kept.within(self.sections), warm_start=warm_start)

    @property
    def wants_latency(self) -> bool:
        """Latency is measured where something asks for it; everything else is counted anyway."""
        of_aliases = {alias.rule.best for alias in self.aliases}
        return LATENCY in {o.name for o in self.objectives} | {c.figure for c in self._bounds} | of_aliases

    @property
    def _bounds(self) -> tuple[Constraint, ...]:
        return (*self.constraints, *(bound for alias in self.aliases for bound in alias.rule.where))

    @property
    def own_figures(self) -> tuple[str, ...]:
        """Where the figures of the network are that are the user's own, each once."""
        paths = (*(o.path for o in self.objectives), *(c.path for c in self._bounds))
        return tuple(dict.fromkeys(path for path in paths if path))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The task's; the first selects."""
        return metrics_of(self.task, f"{self.file}: task")

    @property
    def task(self) -> TaskConfig:
        return self.sections.task.config()

    @property
    def dataset(self) -> DatasetConfig:
        return self.sections.dataset.config()

    def config(self) -> dict[str, Any]:
        """All that is said, as one JSON-able mapping with the schedules written out; without passwords."""
        said = {**self.sections.model_dump(mode="json"), "schedule": dict(self.schedule.mapping)}
        said["warm_start"] = [entry.said() for entry in self.warm_start] or None
        return masked_all(json.loads(json.dumps(said, default=str)))


def load_sweep(file: str | Path, overrides: Overrides | None = None, text: str | None = None) -> Sweep:
    """Read a sweep file. text: what is to stand in it, of one that is not written yet.

    Raises:
        ConfigError: everything that is wrong, as far as it shows without the model and the data.
    """
    file = Path(file)
    said = read_yaml(file) if text is None else parse_yaml(text, str(file))
    check_kind(said, SWEEP, str(file))
    raw = _with_overrides(said, overrides or Overrides())
    faults: list[Fault | str] = []
    if raw.get("goal") is not None and (known := _metrics(raw.get("task"), file, faults)):
        raw = expanded(raw, file, known)
    sections, found = validate(SweepSections, raw, str(file))
    faults += found
    broken = {fault.where.removeprefix(f"{file}: ").partition(".")[0] for fault in found}
    schedule = _schedule(raw.get("schedule"), file, faults) if "schedule" not in broken else None
    dimensions: tuple[Dimension, ...] = ()
    per_layer: tuple[PerLayer, ...] = ()
    if "search" not in broken:
        dimensions, per_layer = _collected(faults, parse_space, raw["search"], f"{file}: search") or ((), ())
    metrics = _metrics(raw.get("task"), file, faults) if "task" not in broken else {}
    objectives: tuple[Objective, ...] = ()
    if metrics and "objectives" not in broken:
        directions = raw.get("objectives") or usual_objectives(metrics)
        objectives = _collected(faults, parse_objectives, directions, f"{file}: objectives", metrics) or ()
    own = [objective.name for objective in objectives if objective.path]
    constraints: tuple[Constraint, ...] = ()
    if metrics and "constraints" not in broken:
        bounds = raw.get("constraints", [])
        constraints = _collected(faults, parse_constraints, bounds, f"{file}: constraints", metrics, own) or ()
    aliases: tuple[Alias, ...] = ()
    if metrics and not broken & {"aliases", "objectives"}:
        aliases = _collected(faults, parse_aliases, raw.get("aliases") or {}, f"{file}: aliases", metrics, own) or ()
    warm_start: tuple[Entry, ...] = ()
    if "warm_start" in raw:
        warm_start = _collected(faults, parse_entries, raw["warm_start"], file) or ()
    faults += _training_paths(dimensions, str(file), bool(raw.get("train")))
    faults += _trunk_paths(dimensions, str(file), bool(raw.get("trunk")))
    automatic = None
    if sections is not None:
        sections = _resolved(sections, file)
        if metrics:
            trained = sections.training.epochs if sections.training.trains else 0
            epochs = (overrides.epochs if overrides else None) or trained
            automatic = chosen(sections, dimensions, per_layer, objectives, metrics, epochs)
            automatic = replace(automatic, places=automatic.places and "warm_start" not in raw)
            warm_start = (AutoEntry(),) if automatic.places else warm_start
            sections = _with_defaults(automatic.within(sections), metrics, objectives)
            faults += _check_scores(sections, metrics, str(file))
            faults += _check_data(sections, file)
        faults += _cross_checks(sections, str(file))
        if trials_of(warm_start) > sections.num_samples:
            rule = f"begins {trials_of(warm_start)} trials, more than num_samples ({sections.num_samples})"
            faults.append(Fault(f"{file}: warm_start", rule, ABSENT, "raise num_samples, or take some out"))
    if faults or sections is None or schedule is None:
        raise ConfigError(*faults)
    if automatic is not None:
        scored = replace(automatic, searcher=sections.searcher, trial_scheduler=sections.trial_scheduler)
        automatic = scored if automatic.why or automatic.places else None
    sweep = Sweep(file, sections, schedule, dimensions, per_layer, objectives, constraints, warm_start, aliases)
    return _shortened(replace(sweep, automatic=automatic), overrides)


def training_values(training: TrainingSection, values: Mapping[str, object], source: str) -> TrainingSection:
    """The training section with a trial's drawn ``training.*`` values put in.

    Raises:
        ConfigError: a drawn value that the section does not take.
    """
    said = training.model_dump(exclude_unset=True)
    for path, value in values.items():
        *sections, name = path.removeprefix(TRAINING).split(".")
        at = said
        for section in sections:
            at = at.setdefault(section, {})
        at[name] = value
    drawn, found = validate(TrainingSection, said, source, "search.training")
    faults = [*found] if found else check_optimization(drawn, f"{source}: search.training")
    if faults:
        raise ConfigError(*faults)
    return drawn


def relocate(faults: tuple[Fault | str, ...]) -> list[Fault | str]:
    """Faults of an inline schedule say ``file: schedule: pruners.x``; make that one key path."""
    return [
        Fault(_INLINE.sub(r": \1.", fault.where, count=1), fault.rule, fault.value, fault.way_out)
        if isinstance(fault, Fault)
        else fault
        for fault in faults
    ]


def _with_overrides(said: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    raw = copy.deepcopy(dict(said))
    for key in ("name", "num_samples", "seed"):
        if getattr(overrides, key) is not None:
            raw[key] = getattr(overrides, key)
    nested = {
        "dataset": {"name": overrides.dataset, "data_dir": overrides.data_dir},
        "tracking": {"uri": overrides.tracking_uri},
    }
    for section, values in nested.items():
        given = {key: value for key, value in values.items() if value is not None}
        if given and isinstance(raw.get(section) or {}, dict):
            raw[section] = {**(raw.get(section) or {}), **given}
    if overrides.searcher is not None:
        written: Any = raw.get("searcher") if isinstance(raw.get("searcher"), dict) else {}
        same = written.get("name") == overrides.searcher["name"]
        raw["searcher"] = {**(written if same else {}), **overrides.searcher}
    if overrides.cpu and isinstance(raw.get("resources_per_trial") or {}, dict):
        raw["resources_per_trial"] = {**(raw.get("resources_per_trial") or {}), "gpu": 0}
    if overrides.data_dir is not None and isinstance(raw.get("dataset"), dict):
        raw["dataset"]["data_dir"] = str(Path(overrides.data_dir).expanduser().resolve())
    return raw


def _schedule(node: Any, file: Path, faults: list[Fault | str]) -> ScheduleSpec | None:
    source = f"{file}: schedule"
    try:
        if isinstance(node, str):
            return schedule_file(file, node, source)
        return parse_schedule(node or {}, source)
    except ConfigError as error:
        faults += relocate(error.faults)
        return None


def _collected(faults: list[Fault | str], parse: Callable[..., T], *arguments: object) -> T | None:
    try:
        return parse(*arguments)
    except RaydistillError as error:
        faults += error.faults
        return None


def _training_paths(dimensions: tuple[Dimension, ...], file: str, has_loop: bool = False) -> list[Fault]:
    searchable = [
        *(field.name for field in settings(Training) if field.setting.searchable and field.name != "optimizer"),
        *(f"optimizer.{field.name}" for field in settings(Optimizer) if field.setting.searchable),
    ]
    sections = ("training", "pruners", "policies", "regularizers", "quantizers", "lr_schedulers", "extensions")
    faults = []
    for path in (dimension.path for dimension in dimensions):
        head, _, name = path.partition(".")
        if path == "training.epochs":
            way_out = "search the policies' ending_epoch instead"
            faults.append(Fault(f"{file}: search.{path}", "trials must be of one length", ABSENT, way_out))
        elif head == "training" and name not in searchable and not name.startswith("optimizer.args."):
            faults.append(Fault(f"{file}: search.{path}", "unknown key", ABSENT, close_match(name, searchable)))
        elif head == "train" and not path.startswith(LOOP):
            faults.append(Fault(f"{file}: search.{path}", "unknown key", ABSENT, f"as in {LOOP}NAME"))
        elif head == "train" and not has_loop:
            rule = "is for a training loop of one's own"
            faults.append(Fault(f"{file}: search.{path}", rule, ABSENT, "name it: 'train: pkg.mod:function'"))
        elif head.partition("[")[0] not in (*sections, "train", "trunk"):
            faults.append(Fault(f"{file}: search.{path}", "unknown section", ABSENT, close_match(head, sections)))
    return faults


def _trunk_paths(dimensions: tuple[Dimension, ...], file: str, has_trunk: bool) -> list[Fault]:
    """What is searched of a trunk: there has to be one, and trials have to be told where they branch off."""
    faults = []
    searched = {d.path: d for d in dimensions if d.path.startswith(TRUNK)}
    for path, dimension in searched.items():
        if path != BRANCH_AT:
            faults.append(Fault(f"{file}: search.{path}", "unknown key", ABSENT, close_match(path, [BRANCH_AT])))
        elif not has_trunk:
            way_out = "add one, as in 'trunk: {epochs: 120}'"
            faults.append(Fault(f"{file}: search.{path}", "is for a sweep with a trunk", ABSENT, way_out))
        elif not all(isinstance(dimension.distribution.from_unit(unit), float) for unit in (0.0, 1.0)):
            rule, way_out = "must draw fractions", "as in {uniform: [0.5, 0.97]}"
            faults.append(Fault(f"{file}: search.{path}", rule, dimension.distribution.describe(), way_out))
    if has_trunk and BRANCH_AT not in searched:
        way_out = f"add '{BRANCH_AT}: {{uniform: [0.5, 0.97]}}' to 'search'"
        faults.append(Fault(f"{file}: trunk", "is not used: no trial branches off", ABSENT, way_out))
    return faults


def _resolved(sections: SweepSections, file: Path) -> SweepSections:
    """Paths made absolute: a trial runs elsewhere."""
    update: dict[str, object] = {}
    if sections.dataset.data_dir is not None:
        data_dir = str(beside(file, sections.dataset.data_dir))
        update["dataset"] = sections.dataset.model_copy(update={"data_dir": data_dir})
    if sections.distillation is not None and sections.distillation.teacher != BASELINE:
        teacher = str(beside(file, sections.distillation.teacher))
        update["distillation"] = sections.distillation.model_copy(update={"teacher": teacher})
    if sections.baseline.checkpoint is not None:
        checkpoint = str(beside(file, sections.baseline.checkpoint))
        update["baseline"] = sections.baseline.model_copy(update={"checkpoint": checkpoint})
    return sections.model_copy(update=update)


def _check_data(sections: SweepSections, file: Path) -> list[Fault | str]:
    faults: list[Fault | str] = []
    data_dir = sections.dataset.data_dir
    try:
        tasks.check(sections.task.config(), sections.dataset.config(), f"{file}: task")
    except ConfigError as error:
        faults += [replace(f, where=f"{file}: {f.where}") if isinstance(f, Fault) else f for f in error.faults]
    if data_dir is not None and not Path(data_dir).exists():
        faults.append(
            Fault(f"{file}: dataset.data_dir", "no such file or folder", data_dir, "mend it or give --data-dir")
        )
    return faults


def _cross_checks(sections: SweepSections, file: str) -> list[Fault | str]:
    faults: list[Fault | str] = []
    baseline, asha = sections.baseline, sections.trial_scheduler
    if baseline.checkpoint is not None:
        if not Path(baseline.checkpoint).exists():
            way_out = missing(baseline.checkpoint)
            faults.append(Fault(f"{file}: baseline.checkpoint", "no such file", baseline.checkpoint, way_out))
        idle = [*baseline.of_training(), *(["schedule"] if baseline.schedule is not None else [])]
        for key in idle:
            way_out = "keep one of the two"
            faults.append(Fault(f"{file}: baseline.{key}", "has no use beside 'checkpoint'", ABSENT, way_out))
    taught = sections.distillation
    if taught is not None:
        if taught.teacher != BASELINE and not Path(taught.teacher).is_file():
            way_out = missing(taught.teacher, f"name a checkpoint, or '{BASELINE}'")
            faults.append(Fault(f"{file}: distillation.teacher", "no such file", taught.teacher, way_out))
        if taught.distill_wt + taught.student_wt == 0:
            faults.append(Fault(f"{file}: distillation", "distill_wt and student_wt must not both be 0"))
        if taught.end_epoch is not None and taught.end_epoch <= taught.start_epoch:
            rule = f"must be above start_epoch {taught.start_epoch}"
            faults.append(Fault(f"{file}: distillation.end_epoch", rule, taught.end_epoch))
    trunk = sections.trunk
    if trunk is not None and trunk.final_sparsity < trunk.initial_sparsity:
        rule = f"must be at least initial_sparsity ({trunk.initial_sparsity:g})"
        faults.append(Fault(f"{file}: trunk.final_sparsity", rule, trunk.final_sparsity))
    if trunk is not None and sections.train is not None:
        rule = "has no use beside a training loop of one's own, which prunes by itself"
        faults.append(Fault(f"{file}: trunk", rule, ABSENT, "keep one of the two"))
    if not sections.training.trains:
        faults += _untrained(sections, file)
    faults += check_optimization(sections.training, f"{file}: training")
    _collected(faults, check_own, sections.searcher, sections.trial_scheduler, file)
    if asha.grace_period is not None and asha.grace_period > sections.training.epochs:
        rule = f"must be at most training.epochs ({sections.training.epochs})"
        faults.append(Fault(f"{file}: trial_scheduler.grace_period", rule, asha.grace_period))
    return faults


def _untrained(sections: SweepSections, file: str) -> list[Fault]:
    """What has no meaning where trials only prune: see `raydistill.training.untrained`."""
    faults = []
    for name in ("distillation", "train"):
        if getattr(sections, name) is not None:
            rule = "is for training, and 0 epochs train nothing"
            faults.append(Fault(f"{file}: {name}", rule, ABSENT, "leave it out, or raise training.epochs"))
    if sections.baseline.checkpoint is None and sections.baseline.epochs is None:
        rule = "must say how long the dense network is trained, or name its checkpoint: trials have 0 epochs"
        faults.append(Fault(f"{file}: baseline", rule, ABSENT, "as in baseline: {checkpoint: dense.pt}"))
    return faults


def _metrics(node: object, file: Path, faults: list[Fault | str]) -> Mapping[str, Metric]:
    """Those of the task that a file names; {} where there is none such."""
    section = TaskSection.model_validate(node or {})
    return _collected(faults, metrics_of, section.config(), f"{file}: task") or {}


def _with_defaults(
    sections: SweepSections, metrics: Mapping[str, Metric], objectives: Sequence[Objective]
) -> SweepSections:
    """What the file leaves to the task: objectives and scores."""
    first = selecting(metrics)
    score = {first: 1.0 if metrics[first].maximise else -1.0, "planned_sparsity": _PLANNED}

    def scored(section: S) -> S:
        return section if section.score is not None else section.model_copy(update={"score": score})

    return sections.model_copy(
        update={
            "objectives": {objective.path or objective.name: objective.direction for objective in objectives},
            "trial_scheduler": scored(sections.trial_scheduler),
            "searcher": scored(sections.searcher),
        }
    )


def _check_scores(sections: SweepSections, metrics: Mapping[str, Metric], file: str) -> list[Fault]:
    faults = []
    known = (*metrics, *SCORABLE)
    for key in ("trial_scheduler", "searcher"):
        score = getattr(sections, key).score
        for name in score:
            if name not in known:
                where = f"{file}: {key}.score.{name}"
                faults.append(Fault(where, "unknown figure", ABSENT, close_match(name, known)))
        if not score:
            way_out = f"as in {{{selecting(metrics)}: 1}}"
            faults.append(Fault(f"{file}: {key}.score", "must weigh at least one figure", {}, way_out))
    return faults


def _schedule_of_baseline(sweep: Sweep) -> None:
    """Raises ConfigError where it is none: what is odd in it cannot be scaled."""
    try:
        parse_schedule(sweep.sections.baseline.schedule or {}, f"{sweep.file}: baseline.schedule")
    except ConfigError as error:
        raise ConfigError(*relocate(error.faults)) from error


def _shortened(sweep: Sweep, overrides: Overrides | None) -> Sweep:
    """``--epochs``: the schedule and the trial scheduler follow in proportion; so does the baseline, but only down."""
    old, new = sweep.sections.training.epochs, overrides.epochs if overrides else None
    if new is None or new == old:
        return sweep
    if new < 1:
        raise ConfigError(Fault("--epochs", "must be at least 1", new))
    ratio = new / old
    sections = sweep.sections
    grace = sections.trial_scheduler.grace_period
    baseline = sections.baseline
    trained = {"epochs": new, "trains": True}
    update: dict[str, object] = {"training": sections.training.model_copy(update=trained)}
    if grace is not None:
        scaled = min(new, max(1, round(grace * ratio)))
        update["trial_scheduler"] = sections.trial_scheduler.model_copy(update={"grace_period": scaled})
    taught = sections.distillation
    if taught is not None:
        start = round(taught.start_epoch * ratio)
        end = None if taught.end_epoch is None else max(start + 1, round(taught.end_epoch * ratio))
        update["distillation"] = taught.model_copy(update={"start_epoch": start, "end_epoch": end})
    if baseline.checkpoint is None:
        epochs = baseline.epochs or old
        shorter = max(1, round(epochs * min(1.0, ratio)))
        changed: dict[str, object] = {"epochs": shorter}
        if baseline.schedule is not None:
            _schedule_of_baseline(sweep)
            changed["schedule"] = scale_epochs(baseline.schedule, epochs, shorter)
        update["baseline"] = baseline.model_copy(update=changed)
    if sections.trunk is not None:
        epochs = max(1, round(sections.trunk.epochs * ratio))
        update["trunk"] = sections.trunk.model_copy(update={"epochs": epochs})
    schedule = parse_schedule(scale_epochs(sweep.schedule.mapping, old, new), sweep.schedule.source)
    warm_start = tuple(
        replace(entry, schedule=parse_schedule(scale_epochs(entry.schedule.mapping, old, new), entry.schedule.source))
        if isinstance(entry, ScheduleEntry)
        else entry
        for entry in sweep.warm_start
    )
    return replace(sweep, sections=sections.model_copy(update=update), schedule=schedule, warm_start=warm_start)
