"""What a run's pruners calibrate on: its training data, as its network is called with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from raydistill.tasks import Loading, Task
from raydistill.tasks.feeds import training_batches
from raydistill.training.config import RunConfig


def calibration_of(task: Task, config: RunConfig, device: torch.device) -> Callable[[], Iterable[Sequence[Any]]]:
    """The batches of the run's first epoch, the same ones each time; of all ranks together. Nothing is read before they
    are asked for."""

    def batches() -> Iterable[Sequence[Any]]:
        loading = Loading(device, config.batch_size, config.seed, config.effective_train_size)
        return training_batches(task, loading)()

    return batches
