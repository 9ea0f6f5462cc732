"""Sweep files that are written: the form that all of them have, and those that are made of sensitivity curves, which
``raydistill sensitivity --write-space`` leaves behind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from raydistill.compression.tolerance import LEAST, START_POINTS, Tolerance, no_drop
from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.metrics import Metric, selecting, shown
from raydistill.parts import Optimizer
from raydistill.parts.optimizer import SGD
from raydistill.sweep.file.spec import DatasetSection, TrainingSection
from raydistill.tasks.base import TaskConfig
from raydistill.training.optimizer import learning_rate

_AGP = "AutomatedGradualPruner"
_WIDTH = 120
PRUNED_UNTIL = 0.75
"""The part of a trial in which it prunes; in the rest it is fine-tuned."""
LR_SHARE = 0.4
"""A pruned network is fine-tuned at this share of the rate that it was trained with."""


@dataclass(frozen=True)
class Measured:
    """What the curves were measured on. command: what was typed, for the comments.

    metrics: the task's. dense: the one that selects, of the dense network, on
    so many samples. dataset: of the `dataset` section, what differs from its defaults. epochs, training: the dense
    network's own.
    """

    arch: str
    checkpoint: Path
    epochs: int
    max_drop: float
    samples: int
    metrics: Mapping[str, Metric]
    dense: float
    command: str
    model_args: Mapping[str, object] = field(default_factory=dict)
    dataset: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    task: TaskConfig = field(default_factory=TaskConfig)


@dataclass(frozen=True)
class SpaceFile:
    """A sweep file that is to be written. about: its first lines, ``search``, ``starts``, ``ends``: lines of it, with
    their comments. sections: those before the baseline, each on one line; notes: what stands behind them.

    baseline: that section's lines. pruned: the weights (or globs) of each instance of gradual pruning, by its name.
    quantizers: each one's class and arguments, by its name; they act in all epochs. trunk: that section's lines.
    epochs: of a trial. decays: whether the schedule lowers the learning rate too.
    """

    about: Sequence[str]
    sections: Mapping[str, object]
    baseline: Sequence[str]
    pruned: Mapping[str, Sequence[str]]
    epochs: int
    search: Sequence[str]
    ends: Sequence[str]
    starts: Sequence[str] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    decays: bool = True
    quantizers: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    pruner: str = _AGP
    pruned_until: float = PRUNED_UNTIL
    trunk: Sequence[str] = ()

    def text(self, file: Path) -> str:
        """The whole file. file: where it will stand; the sweep is named after it."""
        return "\n".join(self._lines(file)) + "\n"

    def _lines(self, file: Path) -> Iterator[str]:
        yield from (f"# {line}" for line in self.about)
        yield from ("version: 1", f"name: {sweep_name(file)}", "")
        for key, said in self.sections.items():
            line, note = f"{key}: {flow(said)}", self.notes.get(key, "")
            if note and len(line) + len(note) > _WIDTH - 6:
                yield f"# {note}"
                note = ""
            yield f"{line}    # {note}" if note else line
        yield from ("", *self.baseline, *([""] if self.baseline else []))
        yield from (*self.trunk, *([""] if self.trunk else []))
        yield from ("schedule:", "  version: 1", *(["  pruners:"] if self.pruned else []))
        for name, weights in self.pruned.items():
            if len(self.pruned) > 1:
                said = {"class": self.pruner, "initial_sparsity": 0.0, "final_sparsity": 0.5, "weights": list(weights)}
                yield f"    {flow(name)}: {flow(said)}"
                continue
            yield from (f"    {flow(name)}:", f"      class: {self.pruner}", "      initial_sparsity: 0.0")
            yield "      final_sparsity: 0.5                      # each weight's own is searched"
            yield "      weights:"
            yield from (f"        - {flow(weight)}" for weight in weights)
        if self.quantizers:
            yield "  quantizers:"
            yield from (f"    {flow(name)}: {flow(dict(said))}" for name, said in self.quantizers.items())
        if self.decays:
            yield from ("  lr_schedulers:", f"    decay: {{class: CosineAnnealingLR, T_max: {self.epochs}}}")
        yield "  policies:"
        until = max(1, round(self.pruned_until * self.epochs))
        for name in self.pruned:
            yield acts("pruner", flow(name), until)
        for name in self.quantizers:
            yield acts("quantizer", flow(name), self.epochs)
        if self.decays:
            yield acts("lr_scheduler", "decay", self.epochs)
        yield from ("", "search:", *self.search, "", *self.starts, *([""] if self.starts else []), *self.ends)


def acts(kind: str, name: str, until: int, indent: int = 4) -> str:
    """A policy from the first epoch on."""
    said = f"{kind}: {{instance_name: {name}}}, starting_epoch: 0, ending_epoch: {until}, frequency: 1"
    return f"{' ' * indent}- {{{said}}}"


def space_text(file: Path, measured: Measured, tolerances: Sequence[Tolerance], num_samples: int = 16) -> str:
    """The whole file. file: where it will stand; the sweep is named after it, paths are relative to it where they can.

    Raises:
        ConfigError: no weight bears anything.
    """
    searched = [tolerance for tolerance in tolerances if not tolerance.dense]
    if not searched:
        rule = f"no weight bears {100 * LEAST:g} % of pruning for a drop of"
        raise ConfigError(Fault("--max-drop", rule, measured.max_drop, "raise it"))
    epochs = measured.epochs
    name = selecting(measured.metrics)
    metric = measured.metrics[name]
    small = no_drop(measured.max_drop, metric, measured.dense, measured.samples)
    cost, least = amount(metric, measured.max_drop, 0), amount(metric, small, 1)
    less = f"of {name} {'less' if metric.maximise else 'more'}"
    search = [
        f"  # Lower: half of what the weight bears unhurt, that is with {least} {less} at most.",
        f"  # Upper: 1 - (1 - s)^2, s what it bears with {cost} {less}; retraining brings much of that back.",
        "  per_layer:",
    ]
    for tolerance in tolerances:
        search += _entry(tolerance, cost)
    starts = ["warm_start:"]
    points: list[dict[str, float]] = []
    for start in START_POINTS:
        values = {f"per_layer.{t.weight}.final_sparsity": t.start_point(start) for t in searched}
        if values not in points and len(points) < num_samples:  # where no weight ever drops, two of them are the same
            points.append(values)
            starts.append(f"  # {start}: {_ABOUT[start]}")
            starts += [f"  {'-' if i == 0 else ' '} {path}: {value}" for i, (path, value) in enumerate(values.items())]
    written = SpaceFile(
        about=[
            f"How hard can each layer of {measured.arch} be pruned?",
            f"    raydistill sweep {file.name}",
            "Bounds and start points are from the curves of each weight pruned by itself, without retraining:",
            f"    {measured.command}",
            f"on {measured.samples:,} validation samples, where the dense network has a {name} of "
            f"{shown(metric, measured.dense)}.",
        ],
        sections=measured_sections(file, measured, epochs),
        notes={"training": f"lr: {LR_SHARE:g} of the dense network's"},
        baseline=given_baseline(measured.checkpoint, file),
        pruned={"agp": [tolerance.weight for tolerance in searched]},
        epochs=epochs,
        search=search,
        starts=starts,
        ends=[
            f"objectives: {{{name}: {metric.direction}, sparsity: max}}",
            f"trial_scheduler: {{name: asha, grace_period: {max(1, epochs // 4)}, reduction_factor: 2, "
            f"score: {{{name}: {1.0 if metric.maximise else -1.0}, planned_sparsity: 0.05}}}}",
            f"num_samples: {num_samples}",
            "seed: 0",
        ],
    )
    return written.text(file)


def model_section(arch: str, arguments: Mapping[str, object]) -> dict[str, object]:
    return {"arch": arch, **({"args": dict(arguments)} if arguments else {})}


def task_section(task: TaskConfig) -> dict[str, object]:
    return {"name": task.name, **({"args": dict(task.args)} if task.args else {})}


def dataset_section(said: Mapping[str, object], file: Path, always: Sequence[str] = ("name",)) -> dict[str, Any]:
    """Of what is said, what differs from the section's defaults, and what is said always."""
    found = _changed(DatasetSection, said, always)
    if found.get("data_dir"):
        found["data_dir"] = relative(Path(found["data_dir"]), file)
    return found


def given_baseline(checkpoint: Path, file: Path) -> list[str]:
    return ["baseline:", f"  checkpoint: {flow(relative(checkpoint, file))}"]


def training_section(epochs: int, said: Mapping[str, Any]) -> dict[str, Any]:
    """Of the dense network's training section, what the sweep's says: the same, at a lower rate."""
    found = {"epochs": epochs, **_changed(TrainingSection, said, ("batch_size",))}
    optimizer = dict(said.get("optimizer", {}))
    if "lr" not in optimizer and optimizer.get("name", SGD) == SGD:
        return {**found, "lr": _lower(said.get("lr", TrainingSection().lr))}
    sections = TrainingSection(optimizer=Optimizer(**optimizer))
    kept = {key: value for key, value in found.items() if key not in ("lr", "weight_decay", "momentum", "nesterov")}
    return {**kept, "optimizer": {**optimizer, "lr": _lower(learning_rate(sections))}}


def _lower(rate: float) -> float:
    return float(f"{LR_SHARE * rate:.3g}")


def sweep_name(file: Path) -> str:
    """The file's stem in the letters that a sweep's name may have."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", file.stem).lstrip("_.-")[:100] or "sweep"


def file_for(name: str) -> Path:
    """A sweep file here, named after a network (``pkg.mod:factory`` too) or a sweep."""
    return Path(f"{sweep_name(Path(name.replace(':', '_').replace('.', '_') + '.yaml'))}.yaml")


_ABOUT = {
    "conservative": "three quarters of what each weight by itself bears unhurt",
    "middle": "as far as each weight bears",
    "aggressive": "half-way from there to the upper bounds",
}


def measured_sections(file: Path, measured: Measured, epochs: int) -> dict[str, object]:
    """What a sweep of the measured network trains, and on what."""
    classifies = measured.task == TaskConfig()
    dataset = dataset_section(measured.dataset, file, ("name",) if classifies else ())
    return {
        "model": model_section(measured.arch, measured.model_args),
        **({} if classifies else {"task": task_section(measured.task)}),
        **({"dataset": dataset} if dataset else {}),
        "training": training_section(epochs, measured.training),
    }


def amount(metric: Metric, drop: float, digits: int) -> str:
    """A drop of a metric, in its unit."""
    return f"{100 * drop:.{digits}f} points" if metric.is_fraction else f"{drop:g}"


def _entry(tolerance: Tolerance, cost: str) -> list[str]:
    weight = flow(tolerance.weight)
    if tolerance.dense:
        return [f"    # {tolerance.weight} stays dense: pruning it by {tolerance.borne:g} costs {cost}"]
    known = f"bears {tolerance.borne:g}"
    if tolerance.insensitive:
        known = f"bears all that was measured, {tolerance.measured:g}"
    bounds = f"{{uniform: [{float(tolerance.lower)}, {float(tolerance.upper)}]}}"
    return [f"    - {{weights: [{weight}], final_sparsity: {bounds}}}    # {known}"]


def _changed(section: Any, said: Mapping[str, Any], always: Sequence[str]) -> dict[str, Any]:
    """Of what is said, what the section knows and does not have by itself."""
    defaults = section().model_dump()
    known = {key: value for key, value in said.items() if key in defaults}
    return {key: value for key, value in known.items() if key in always or value != defaults[key]}


def relative(path: Path, file: Path) -> str:
    """Relative to the file's folder where it lies inside it, so that both can be moved together."""
    try:
        return str(path.resolve().relative_to(file.resolve().parent))
    except ValueError:
        return str(path.resolve())


def flow(value: object) -> str:
    """A value on one line of YAML; 1.0e-05 and not 1e-05, which YAML 1.1 reads as text."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True).strip()
    return text.removesuffix("...").strip()


def may_write(file: Path, overwrite: bool, option: str = "--write-space") -> None:
    """Raises ConfigError where `file` is there already and may not be replaced; asked before anything is measured."""
    if file.is_dir():
        raise ConfigError(Fault(option, "is a folder", str(file), "name a file, as in space.yaml"))
    if file.exists() and not overwrite:
        way_out = "add --overwrite, or choose another name"
        raise ConfigError(Fault(option, f"{file} is there already", ABSENT, way_out))
