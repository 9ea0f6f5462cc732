"""Which classes of the test split are taken for which, as files."""

from __future__ import annotations

from pathlib import Path

import torch

from raydistill.analysis.network import Network
from raydistill.compression.early_exit import exits
from raydistill.compression.statistics import ConfusionMatrix, confusion_csv, confusion_png
from raydistill.errors import ConfigError, Fault
from raydistill.files import write_atomically
from raydistill.tasks import TEST, Loading, Task


@torch.no_grad()
def write_confusion(network: Network, task: Task, loading: Loading, path: Path) -> None:
    """A CSV, and a PNG of the same name beside it. task: as the network wants it.

    Raises:
        ConfigError: the task has no classes.
    """
    classes = task.described().get("classes")
    if classes is None:
        raise ConfigError(Fault("confusion", "is for a task with classes", task.name, "leave it out"))
    if task.described().get("multi_label"):
        raise ConfigError(Fault("confusion", "is for one label an image", task.name, "leave it out"))
    model = network.model.to(loading.device)
    matrix = ConfusionMatrix(len(classes))
    for batch in task.feed(TEST, loading).epoch(0):
        matrix.update(exits(model(*task.inputs(batch)))[-1], batch[-1])
    write_atomically(path, confusion_csv(matrix.counts, classes))
    title = f"{network.arch} on {task.name} (test)"
    confusion_png(matrix.counts, path.with_suffix(".png"), classes, title)
