"""The task of a sweep, its data prepared as the weights that its baseline begins with want them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from raydistill.datasets import DatasetConfig
from raydistill.sweep.file.load import Sweep
from raydistill.sweep.planning.runs import baseline_config
from raydistill.tasks import Task, TaskConfig
from raydistill.training.start import task_of


def data_of(task: TaskConfig, data: DatasetConfig) -> str:
    """What is about to be loaded, in words: a dataset's name; of another task than classification the task's too."""
    if task.name == TaskConfig().name:
        return data.name
    if data.data_dir is not None:
        return f"{Path(data.data_dir).name} ({task.name})"
    return task.name if data.name == DatasetConfig().name else f"{data.name} ({task.name})"


def sweep_task(sweep: Sweep) -> Task:
    """Loaded, with its data.

    Raises:
        ConfigError, DataError, CheckpointError: the data or the baseline's weights cannot be had.
    """
    run, given = baseline_config(sweep), sweep.sections.baseline.checkpoint
    if given is not None and Path(given).exists():  # a resumed sweep has its own copy
        run = replace(run, init_from=given)
    return task_of(run)
