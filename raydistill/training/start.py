"""What a run begins with: its weights, and the task whose data are prepared as these want them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from raydistill import models, tasks
from raydistill.tasks import Task, Weights
from raydistill.tasks.classification.preprocessing import described, of_published
from raydistill.training import checkpoint as saved
from raydistill.training.config import RunConfig
from raydistill.training.distiller_checkpoint import read_any


def weights_of(config: RunConfig) -> Weights:
    """The weights that a run has in its folder already, or begins with; without content where they are published ones
    or fresh.

    Raises:
        CheckpointError: those weights cannot be read.
    """
    own = Path(config.out_dir) / saved.FILE_NAME if config.out_dir is not None and config.resume else None
    for path in (own, config.continue_from, config.init_from):
        if path is not None and (path is not own or own.exists()):  # type: ignore[union-attr]
            return Weights(config.arch, config.model_args, read_any(path), str(path))
    return Weights(config.arch, config.model_args, where="model.args.pretrained")


def task_of(config: RunConfig) -> Task:
    """The task of a run, its data loaded.

    Raises:
        ConfigError, DataError, CheckpointError: it cannot be had.
    """
    return tasks.load(config.task, config.dataset, weights_of(config))


def removed_layers(content: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of a checkpoint's model that its weights mean nothing without."""
    arguments = ((content or {}).get("run") or {}).get("model_args") or {}
    return {key: arguments[key] for key in ("removed",) if key in arguments}


def published_checkpoint(arch: str, num_classes: int | None) -> dict[str, Any]:
    """The content of a checkpoint that holds published weights, as if a run of no epochs had begun with them.

    num_classes: of the last layer, which is random where the weights have another number; None: theirs.

    Raises:
        ConfigError: there are none of this architecture. CheckpointError: they cannot be had.
    """
    seen = of_published(arch, True, "--pretrained")
    classes = num_classes or models.default_num_classes(arch, "--arch")
    arguments = {"pretrained": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.create(arch, classes, arguments, "--arch")
    return {
        "epoch": -1,
        "run": {"arch": arch, "model_args": arguments},
        "schedule": "",
        "schedule_hash": saved.schedule_hash(""),
        "precision": "fp32",
        "num_classes": classes,
        **described(seen),
        "model": model.state_dict(),
        "structure": [],
        "optimizer": {},
        "scheduler": {"masks": {}, "policies": []},
        "rng": None,
        "history": [],
    }
