"""What a run's pruners and quantizers calibrate on: its training data, as its network is called with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from raydistill.compression.quantizers.kept_statistics import KeptStatistics
from raydistill.parts import hashed
from raydistill.tasks import Loading, Task
from raydistill.tasks.feeds import training_batches
from raydistill.training.config import RunConfig

_OF_WEIGHTS = ("schedule", "init_from", "continue_from", "distillation", "values")
"""What of a run decides its weights, which are looked at themselves."""


def calibration_of(task: Task, config: RunConfig, device: torch.device) -> Callable[[], Iterable[Sequence[Any]]]:
    """The batches of the run's first epoch, the same ones each time; of all ranks together. Nothing is read before they
    are asked for."""

    def batches() -> Iterable[Sequence[Any]]:
        loading = Loading(device, config.batch_size, config.seed, config.effective_train_size)
        return training_batches(task, loading)()

    return batches


def kept_statistics(config: RunConfig, device: torch.device) -> KeptStatistics | None:
    """What runs of the same `statistics_dir` share of `calibration_of`, which have the same data; None where this one
    has none."""
    if config.statistics_dir is None:
        return None
    said = hashed(config, asdict(config))
    about = {key: value for key, value in said.items() if key not in _OF_WEIGHTS}
    about["device"] = device.type
    return KeptStatistics(Path(config.statistics_dir), json.dumps(about, sort_keys=True, default=repr))
