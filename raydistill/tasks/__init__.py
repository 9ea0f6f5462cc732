"""The menu of tasks. A user's own is a class derived from `Task`, as ``pkg.mod:Class``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from raydistill.datasets.config import DatasetConfig
from raydistill.errors import ABSENT, ConfigError, Fault, users_code
from raydistill.metrics import DIRECTIONS, LOSS, Metric
from raydistill.resolve import in_folder, resolve_class
from raydistill.tasks.base import (
    TEST,
    TRAIN,
    VALIDATION,
    Batch,
    Feed,
    Loading,
    Network,
    Task,
    TaskConfig,
    TaskShape,
    Weights,
)
from raydistill.tasks.loop_task import LoopTask

__all__ = [
    "MENU",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Batch",
    "Feed",
    "Loading",
    "LoopTask",
    "Network",
    "Task",
    "TaskConfig",
    "TaskShape",
    "Weights",
    "check",
    "foreseen",
    "load",
    "metrics_of",
]

MENU = {
    "classification": "raydistill.tasks.classification:Classification",
    "language_model": "raydistill.tasks.language_model:LanguageModel",
    "regression": "raydistill.tasks.regression:Regression",
    "recommender": "raydistill.tasks.recommender:Recommender",
    "detection": "raydistill.tasks.detection:Detection",
}


def load(config: TaskConfig, data: DatasetConfig, weights: Weights, where: str = "task") -> Task:
    """The task that `config` names, its data loaded. where: file and key path, for errors.

    Raises:
        ConfigError: no such task, arguments it does not take, or a class that is no task.
        DataError: its data are missing or damaged.
    """
    kind = _class_of(config, where)
    with in_folder():
        if kind.load.__func__ is Task.load.__func__:  # type: ignore[attr-defined]  # nothing but the class itself
            found = _called(kind, config, where)
        else:
            found = _called(kind.load, config, where, data, weights)
    if not isinstance(found, Task):
        raise ConfigError(Fault(where, f"'{config.name}' must load a Task", type(found).__name__))
    return found


def check(config: TaskConfig, data: DatasetConfig, where: str = "task") -> None:
    """What the task says of the user's dataset before it is read.

    Raises:
        ConfigError: no such task, or a dataset that it cannot take.
    """
    _class_of(config, where).check(data)


def foreseen(config: TaskConfig, data: DatasetConfig, where: str = "task") -> TaskShape | None:
    """What is known of it before its data are read; None where that is nothing."""
    kind = _class_of(config, where)
    found: TaskShape | None = _called(kind.foreseen, config, where, data)
    return found


def metrics_of(config: TaskConfig, where: str = "task") -> Mapping[str, Metric]:
    """The metrics of a task by name, the one that selects first, before its data are read.

    Raises:
        ConfigError: no such task, or one that does not say its metrics.
    """
    found: Mapping[str, Metric] = _called(_class_of(config, where).judged_by, config, where)
    return found


def _class_of(config: TaskConfig, where: str) -> type[Task]:
    kind: type[Task] = resolve_class(config.name, MENU, Task, f"{where}.name", "task")
    metrics = getattr(kind, "metrics", None)
    right = isinstance(metrics, Mapping) and all(
        isinstance(name, str) and isinstance(metric, Metric) and metric.direction in DIRECTIONS
        for name, metric in metrics.items()
    )
    if not right or LOSS not in metrics:  # type: ignore[operator]
        rule = f"must have 'metrics' that map names to Metric, '{LOSS}' among them"
        raise ConfigError(Fault(f"{where}.name", f"'{config.name}' {rule}", ABSENT, "the first one selects"))
    return kind


def _called(make: Any, config: TaskConfig, where: str, *given: Any) -> Any:
    try:
        inspect.signature(make).bind(*given, **config.args)
    except TypeError as error:
        raise ConfigError(Fault(f"{where}.args", f"'{config.name}' does not take them ({error})")) from error
    own = users_code(where, f"'{config.name}'", "see what loads it")
    with nullcontext() if config.name in MENU else own:
        return make(*given, **config.args)
