"""A sweep file written from sensitivity curves: what ``raydistill sensitivity --write-space`` leaves behind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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


def space_text(file: Path, measured: Measured, tolerances: Sequence[Tolerance], num_samples: int = 16) -> str:
    """The whole file. file: where it will stand; the sweep is named after it, paths are relative to it where they can.

    Raises:
        ConfigError: no weight bears anything.
    """
    searched = [tolerance for tolerance in tolerances if not tolerance.dense]
    if not searched:
        rule = f"no weight bears {100 * LEAST:g} % of pruning for a drop of"
        raise ConfigError(Fault("--max-drop", rule, measured.max_drop, "raise it"))
    epochs, said = measured.epochs, dict(measured.training)
    training = _training(epochs, said)
    model = {"arch": measured.arch, **({"args": dict(measured.model_args)} if measured.model_args else {})}
    classifies = measured.task == TaskConfig()
    task = {"name": measured.task.name, **({"args": dict(measured.task.args)} if measured.task.args else {})}
    dataset = _changed(DatasetSection, measured.dataset, ("name",) if classifies else ())
    if dataset.get("data_dir"):
        dataset["data_dir"] = _relative(Path(dataset["data_dir"]), file)
    name = selecting(measured.metrics)
    metric = measured.metrics[name]
    small = no_drop(measured.max_drop, metric, measured.dense, measured.samples)
    cost, least = _amount(metric, measured.max_drop, 0), _amount(metric, small, 1)
    less = f"of {name} {'less' if metric.maximise else 'more'}"
    lines = [
        f"# How hard can each layer of {measured.arch} be pruned?",
        f"#     raydistill sweep {file.name}",
        "# Bounds and start points are from the curves of each weight pruned by itself, without retraining:",
        f"#     {measured.command}",
        f"# on {measured.samples:,} validation samples, where the dense network has a {name} of "
        f"{shown(metric, measured.dense)}.",
        "version: 1",
        f"name: {sweep_name(file)}",
        "",
        f"model: {_flow(model)}",
        *([] if classifies else [f"task: {_flow(task)}"]),
        *([f"dataset: {_flow(dataset)}"] if dataset else []),
        f"training: {_flow(training)}    # lr: {LR_SHARE:g} of the dense network's",
        "",
        "baseline:",
        f"  checkpoint: {_flow(_relative(measured.checkpoint, file))}",
        "",
        "schedule:",
        "  version: 1",
        "  pruners:",
        "    agp:",
        "      class: AutomatedGradualPruner",
        "      initial_sparsity: 0.0",
        "      final_sparsity: 0.5                      # each weight's own is searched",
        "      weights:",
        *(f"        - {_flow(tolerance.weight)}" for tolerance in searched),
        "  lr_schedulers:",
        f"    decay: {{class: CosineAnnealingLR, T_max: {epochs}}}",
        "  policies:",
        f"    - {{pruner: {{instance_name: agp}}, starting_epoch: 0, ending_epoch: "
        f"{max(1, round(PRUNED_UNTIL * epochs))}, frequency: 1}}",
        f"    - {{lr_scheduler: {{instance_name: decay}}, starting_epoch: 0, ending_epoch: {epochs}, frequency: 1}}",
        "",
        "search:",
        f"  # Lower: half of what the weight bears unhurt, that is with {least} {less} at most.",
        f"  # Upper: 1 - (1 - s)^2, s what it bears with {cost} {less}; retraining brings much of that back.",
        "  per_layer:",
    ]
    for tolerance in tolerances:
        lines += _entry(tolerance, cost)
    lines += ["", "warm_start:"]
    starts: list[dict[str, float]] = []
    for start in START_POINTS:
        values = {f"per_layer.{t.weight}.final_sparsity": t.start_point(start) for t in searched}
        if values not in starts and len(starts) < num_samples:  # where no weight ever drops, two of them are the same
            starts.append(values)
            lines.append(f"  # {start}: {_ABOUT[start]}")
            lines += [f"  {'-' if i == 0 else ' '} {path}: {value}" for i, (path, value) in enumerate(values.items())]
    lines += [
        "",
        f"objectives: {{{name}: {metric.direction}, sparsity: max}}",
        f"trial_scheduler: {{name: asha, grace_period: {max(1, epochs // 4)}, reduction_factor: 2, "
        f"score: {{{name}: {1.0 if metric.maximise else -1.0}, planned_sparsity: 0.3}}}}",
        f"num_samples: {num_samples}",
        "seed: 0",
    ]
    return "\n".join(lines) + "\n"


def _training(epochs: int, said: Mapping[str, Any]) -> dict[str, Any]:
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


_ABOUT = {
    "conservative": "three quarters of what each weight by itself bears unhurt",
    "middle": "as far as each weight bears",
    "aggressive": "half-way from there to the upper bounds",
}


def _amount(metric: Metric, drop: float, digits: int) -> str:
    return f"{100 * drop:.{digits}f} points" if metric.is_fraction else f"{drop:g}"


def _entry(tolerance: Tolerance, cost: str) -> list[str]:
    weight = _flow(tolerance.weight)
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


def _relative(path: Path, file: Path) -> str:
    """Relative to the file's folder where it lies inside it, so that both can be moved together."""
    try:
        return str(path.resolve().relative_to(file.resolve().parent))
    except ValueError:
        return str(path.resolve())


def _flow(value: object) -> str:
    """A value on one line of YAML; 1.0e-05 and not 1e-05, which YAML 1.1 reads as text."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True).strip()
    return text.removesuffix("...").strip()


def may_write(file: Path, overwrite: bool) -> None:
    """Raises ConfigError where `file` is there already and may not be replaced; asked before anything is measured."""
    if file.is_dir():
        raise ConfigError(Fault("--write-space", "is a folder", str(file), "name a file, as in space.yaml"))
    if file.exists() and not overwrite:
        way_out = "add --overwrite, or choose another name"
        raise ConfigError(Fault("--write-space", f"{file} is there already", ABSENT, way_out))
