"""A sweep file to begin with, for a network, its data and its task: what ``raydistill init`` leaves behind.

Ranges are wide, because nothing was measured: ``raydistill sensitivity --write-space`` narrows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from raydistill.compression import weights as weights_of
from raydistill.metrics import Metric, selecting
from raydistill.parts import Optimizer
from raydistill.parts.optimizer import SGD
from raydistill.sweep.file import trunk_space
from raydistill.sweep.file.goal import ALIAS, SPARSITY, Goal
from raydistill.sweep.file.ranges import Range, ranges, structure_ranges, wide
from raydistill.sweep.file.space_file import (
    LR_SHARE,
    SpaceFile,
    acts,
    dataset_section,
    flow,
    given_baseline,
    model_section,
    task_section,
    training_section,
)
from raydistill.sweep.file.spec import TrainingSection
from raydistill.tasks import TaskConfig
from raydistill.tasks.of_checkpoint import CLASSIFICATION
from raydistill.training.optimizer import learning_rate

STRUCTURES_UNTIL = 0.5
"""The part of a trial in which structures are pruned: what is left has more to learn again."""
_USUAL: dict[str, dict[str, Any]] = {  # those of search_spaces/
    CLASSIFICATION: {"epochs": 60},
    "language_model": {"epochs": 4, "batch_size": 32, "optimizer": {"name": "AdamW", "lr": 0.004, "clip_norm": 1.0}},
    "regression": {"epochs": 30, "batch_size": 32, "lr": 0.01, "weight_decay": 0.01},
    "recommender": {"epochs": 8, "optimizer": {"name": "Adam", "lr": 0.002}},
    "detection": {"epochs": 12, "batch_size": 16, "lr": 0.02, "optimizer": {"clip_norm": 10.0}},
}
_OF_OWN_TASK: dict[str, Any] = {"epochs": 10}


@dataclass(frozen=True)
class Subject:
    """What is to be searched. arch, model_args, task, dataset: as a sweep file says them. train: of one's own loop.

    checkpoint: the dense network that trials start from, with the epochs and the training section that it was trained
    with, as far as it says them; None where the sweep trains one. command: what was typed. searcher: that is named.
    """

    arch: str
    task: TaskConfig
    metrics: Mapping[str, Metric]
    dataset: Mapping[str, Any]
    command: str
    model_args: Mapping[str, object] = field(default_factory=dict)
    train: Mapping[str, Any] | None = None
    checkpoint: Path | None = None
    epochs: int | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    num_samples: int = 16
    searcher: str | None = None

    @property
    def has_trunk(self) -> bool:
        """Whether a goal of sparsity is reached along a trunk: of images that is what was measured."""
        return self.task.name == CLASSIFICATION and self.train is None and self.searcher is None


def first_space(
    file: Path, subject: Subject, model: nn.Module, goal: Goal | None = None, example: Sequence[object] = ()
) -> str:
    """The whole file. file: where it will stand. model: the network, for its layers' names. example: its inputs, for a
    goal that wants structures to go.

    Raises:
        ConfigError: there is nothing to prune.
    """
    structures = goal is not None and goal.by_structures
    found, dense = ([], []) if structures else ranges(model, blocks=goal is None)
    if structures:
        found = structure_ranges(model, example)
    elif goal is not None:
        found = wide(found)
    trunk = goal if goal is not None and goal.figure == SPARSITY and subject.has_trunk else None
    by_block = found[0].name not in ("agp", "structures")
    usual = _USUAL.get(subject.task.name, _OF_OWN_TASK)
    said = {**usual, **subject.training} if "optimizer" not in subject.training else dict(subject.training)
    epochs = subject.epochs or int(usual["epochs"])
    sections: dict[str, object] = {"model": model_section(subject.arch, subject.model_args)}
    if subject.task != TaskConfig():
        sections["task"] = task_section(subject.task)
    if subject.train is not None:
        sections["train"] = dict(subject.train)
    dataset = dataset_section(subject.dataset, file)
    if dataset != {"name": "cifar10"} or subject.task.name == CLASSIFICATION:
        sections["dataset"] = {key: value for key, value in dataset.items() if key != "name" or _is_named(subject)}
    own_loop = subject.train is not None
    notes = {} if own_loop else {"training": f"lr: {LR_SHARE:g} of the dense network's"}
    training = {"epochs": epochs} if own_loop else training_section(epochs, said)
    sections["training"] = training
    name = selecting(subject.metrics)
    metric = subject.metrics[name]
    written = SpaceFile(
        about=_about(file, subject, goal),
        sections=sections,
        notes=notes,
        baseline=_trained_baseline(epochs, said, own_loop)
        if subject.checkpoint is None
        else given_baseline(subject.checkpoint, file),
        pruned={} if trunk is not None else _pruned(found, [entry for entry, _ in weights_of(model)]),
        epochs=epochs,
        search=_search(found, dense, by_block, training)
        if trunk is None
        else trunk_space.search_lines(trunk, training),
        ends=_ends(subject, name, metric, epochs, by_layer=not by_block and not own_loop)
        if goal is None
        else _ends_of_goal(subject, goal),
        decays=not own_loop,
    )
    if structures:
        written = replace(written, pruner="CoupledPruner", pruned_until=STRUCTURES_UNTIL)
    if trunk is not None:
        pruned = [name for one in found for name in one.weights] if dense else []
        written = replace(written, trunk=trunk_space.trunk_lines(trunk, epochs, pruned))
    return written.text(file)


def _is_named(subject: Subject) -> bool:
    """Whether the dataset's name says anything: other tasks than classification read what ``data_dir`` holds."""
    return subject.task.name == CLASSIFICATION or subject.dataset.get("name") != "cifar10"


def _about(file: Path, subject: Subject, goal: Goal | None) -> list[str]:
    lines = [
        f"How hard can each layer of {subject.arch} be pruned?"
        if goal is None
        else f"Which {subject.arch} is the best in {goal.best} with {' and '.join(map(str, goal.bounds))}?",
        f"    raydistill sweep {file.name} --dry-run    # checks it, and shows what it would do",
        f"    raydistill sweep {file.name}",
        "Written by:",
        f"    {subject.command}",
    ]
    if subject.dataset.get("fallback"):
        lines.append("Data of your own: dataset: {name: imagefolder, data_dir: DIR}, or {name: pkg.mod:factory}.")
    return lines


def _trained_baseline(epochs: int, said: Mapping[str, object], own_loop: bool) -> list[str]:
    lines = ["baseline:                                      # the dense network: trained once, and kept"]
    lines.append(f"  epochs: {epochs}")
    if own_loop:
        return lines
    lines += [
        f"  lr: {flow(_rate(said))}",
        "  schedule:",
        "    lr_schedulers:",
        f"      decay: {{class: CosineAnnealingLR, T_max: {epochs}}}",
        "    policies:",
        acts("lr_scheduler", "decay", epochs, 6),
    ]
    return lines


def _rate(said: Mapping[str, Any]) -> float:
    optimizer = dict(said.get("optimizer", {}))
    if "lr" in optimizer:
        return float(optimizer["lr"])
    if optimizer.get("name", SGD) == SGD:
        return float(said.get("lr", TrainingSection().lr))
    return float(learning_rate(TrainingSection(optimizer=Optimizer(**optimizer))))


def _pruned(found: Sequence[Range], names: Sequence[str]) -> dict[str, list[str]]:
    """The weights of each pruner; a glob where one fits them and nothing else."""
    pruned: dict[str, list[str]] = {}
    for one in found:
        glob = _glob(one.weights, names) if len(one.weights) > 1 else None
        pruned.setdefault(one.name, []).extend([glob] if glob else one.weights)
    return pruned


def _glob(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    shared = wanted[0]
    while not all(name.startswith(shared) for name in wanted):
        shared = shared.removesuffix(".").rpartition(".")[0]
        if not shared:
            return None
        shared += "."
    glob = f"{shared}*weight"
    return glob if [name for name in names if fnmatchcase(name, glob)] == list(wanted) else None


def _search(found: Sequence[Range], dense: Sequence[str], by_block: bool, training: object) -> list[str]:
    rate = _searched_rate(training)
    lines = [f"  # {rate}"] if rate else []
    if by_block:
        lines.append("  # One value for each block, its layers pruned alike; per_layer would draw one for each weight.")
        lines.append("  # Behind it how many weights it has, and their share of all.")
        for one in found:
            bounds = f"{{uniform: [{one.low}, {one.high}]}}"
            lines.append(f"  {flow(f'pruners.{one.name}.final_sparsity')}: {bounds}    # {one.note}")
    else:
        if found[0].name == "structures":
            lines.append("  # One value for what goes together, named by the first weight that writes it.")
        else:
            lines.append(
                "  # One value for each weight; behind it its shape and its share of all. Bounds are what is usual:"
            )
            lines.append("  # raydistill sensitivity --write-space measures narrower ones on a trained network.")
        lines.append("  per_layer:")
        for one in found:
            bounds = f"{{uniform: [{one.low}, {one.high}]}}"
            lines.append(f"    - {{weights: {flow(list(one.weights))}, final_sparsity: {bounds}}}    # {one.note}")
    if dense:
        more = f" and {len(dense) - 3} more" if len(dense) > 3 else ""
        lines.append(f"  # Left dense, as no weights of a layer: {', '.join(dense[:3])}{more}.")
    return lines


def _searched_rate(training: object) -> str:
    if not isinstance(training, Mapping):
        return ""
    inside = training.get("optimizer", {})
    rate, path = (inside["lr"], "training.optimizer.lr") if "lr" in inside else (training.get("lr"), "training.lr")
    return "" if rate is None else f"{path}: {{loguniform: [{flow(rate / 2)}, {flow(rate * 2)}]}}"


def _ends(subject: Subject, name: str, metric: Metric, epochs: int, by_layer: bool) -> list[str]:
    """by_layer: each layer has its own level, which `additive` knows how to choose."""
    limit = f"{name}_{'drop' if metric.maximise else 'rise'}"
    example = f"{limit} <= {'0.01' if metric.is_fraction else '0.1'}"
    early = max(1, epochs // 4)
    about = "# Stops weak trials early; {name: none} trains all of them to the end."
    if by_layer:  # as it was measured: it learns from trials that come to their end
        about = (
            "# Every trial trains to its end, for the searcher to learn from; {name: asha} would stop weak ones early."
        )
        scheduler = "{name: none}"
    elif metric.is_fraction and metric.maximise:
        scheduler = f"{{name: asha, grace_period: {early}, score: {{{name}: 1.0, planned_sparsity: 0.05}}}}"
    else:  # a weighted sum would have to know how large the metric is
        scheduler = f"{{name: moasha, grace_period: {early}}}"
    return [
        "# Also macs, parameters, size_bytes, latency_ms (min); element-wise pruning changes none of these four.",
        f"objectives: {{{name}: {metric.direction}, sparsity: max}}",
        f'# constraints: ["{example}", "sparsity >= 0.5"]    # what breaks one is shown, but not on the front',
        "",
        "searcher: {name: additive}    # measures what each layer loses by itself, then learns from results"
        if by_layer
        else "searcher: {name: sobol}    # spread evenly; tpe, gp, evolution, ... learn from results",
        about,
        f"trial_scheduler: {scheduler}",
        f"num_samples: {subject.num_samples}    # trials",
        "seed: 0",
        "# confirm: 2    # train each member of the front twice more, with other seeds",
        "# resources_per_trial: {gpu: 0.5}    # left out: one GPU, or where there is none one CPU core",
    ]


def _ends_of_goal(subject: Subject, goal: Goal) -> list[str]:
    bounds = flow([str(bound) for bound in goal.bounds])
    return [
        f"objectives: {flow(goal.objectives(subject.metrics))}",
        f"constraints: {bounds}",
        f"aliases: {{{ALIAS}: {{best: {goal.best}}}}}    # what was asked for, in the model registry",
        "",
        "# searcher and trial_scheduler are left to the tool; --dry-run says what they are.",
        f"num_samples: {subject.num_samples}    # trials",
        "seed: 0",
        "# confirm: 2    # train each member of the front twice more, with other seeds",
        "# resources_per_trial: {gpu: 0.5}    # left out: one GPU, or where there is none one CPU core",
    ]
