"""A sweep file with a ``goal`` and without ``search``: what it leaves out is written as ``raydistill init`` would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.metrics import Metric
from raydistill.schedule import parse_yaml, scale_epochs
from raydistill.sweep.file.first_space import Subject, first_space
from raydistill.sweep.file.goal import ALIAS, Goal, parse_goal
from raydistill.sweep.file.spec import TaskSection, beside
from raydistill.sweep.file.subject_network import network_of


def expanded(raw: Mapping[str, object], file: Path, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """The sections of a file with all that follows from its goal; what the file says itself stays. metrics: the task's.

    Raises:
        RaydistillError: there is no such goal, or the network cannot be built.
    """
    goal = parse_goal(raw["goal"], f"{file}: goal", metrics)
    constraints, aliases = raw.get("constraints") or [], raw.get("aliases") or {}
    said = {
        **raw,
        "objectives": raw.get("objectives") or goal.objectives(metrics),
        "constraints": [*map(str, goal.bounds), *constraints] if isinstance(constraints, list) else constraints,
        "aliases": {ALIAS: {"best": goal.best}, **aliases} if isinstance(aliases, dict) else aliases,
    }
    left = [key for key in ("schedule", "search") if key not in raw]
    if len(left) == 1:
        rule = "goes with a 'search': a goal writes both or neither" if left == ["search"] else "goes with a 'schedule'"
        there = "schedule" if left == ["search"] else "search"
        raise ConfigError(Fault(f"{file}: {there}", rule, ABSENT, f"add '{left[0]}', or leave '{there}' out"))
    return _with_space(said, file, goal, metrics) if left else said


def _with_space(said: dict[str, Any], file: Path, goal: Goal, metrics: Mapping[str, Metric]) -> dict[str, Any]:
    model, training, baseline = (_mapping(said, key) for key in ("model", "training", "baseline"))
    if not isinstance(model.get("arch"), str):
        return said  # it is told what is missing
    dataset = dict(_mapping(said, "dataset"))
    if isinstance(dataset.get("data_dir"), str):
        dataset["data_dir"] = str(beside(file, dataset["data_dir"]))
    checkpoint = baseline.get("checkpoint")
    subject = Subject(
        arch=model["arch"],
        task=TaskSection.model_validate(said.get("task") or {}).config(),
        metrics=metrics,
        dataset=dataset or {"name": "cifar10"},
        command="",
        model_args=model.get("args") or {},
        train={"name": said["train"]} if isinstance(said.get("train"), str) else said.get("train"),
        checkpoint=beside(file, checkpoint) if isinstance(checkpoint, str) else None,
        epochs=training.get("epochs"),
        training={key: value for key, value in training.items() if key != "epochs"},
        searcher=_mapping(said, "searcher").get("name"),
    )
    built = network_of(subject, f"{file}: model.arch")
    text = first_space(file, built.subject, built.model, goal, built.example)
    written: dict[str, Any] = dict(parse_yaml(text, str(file)))
    filled = {**written, **said, "training": {**written["training"], **training}}
    if subject.checkpoint is None:
        dense = dict(written["baseline"])
        if isinstance(baseline.get("epochs"), int) and "schedule" in dense:
            dense["schedule"] = scale_epochs(dense["schedule"], dense["epochs"], max(1, baseline["epochs"]))
        filled["baseline"] = {**dense, **baseline}
    if "image_size" in built.subject.dataset and "image_size" not in dataset:
        filled["dataset"] = {**dict(_mapping(said, "dataset")), "image_size": built.subject.dataset["image_size"]}
    return filled


def _mapping(said: Mapping[str, object], key: str) -> Mapping[str, Any]:
    """A section, where it is one."""
    found = said.get(key)
    return found if isinstance(found, dict) else {}
