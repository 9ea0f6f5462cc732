"""What a run begins with: its weights, and the task whose data are prepared as these want them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from raydistill import models, tasks
from raydistill.errors import ConfigError, Fault
from raydistill.parts import Pixels, pixel_faults
from raydistill.tasks import Task, Weights
from raydistill.tasks.classification.preprocessing import described, of_published
from raydistill.training import checkpoint as saved
from raydistill.training.config import RunConfig
from raydistill.training.distiller_checkpoint import read_any


def weights_of(config: RunConfig) -> Weights:
    """The weights that a run has in its folder already, or begins with; without content where they are published ones
    or fresh.

    Raises:
        CheckpointError: those weights cannot be read. ConfigError: what is said of their pixels is wrong.
    """
    own = Path(config.out_dir) / saved.FILE_NAME if config.out_dir is not None and config.resume else None
    pixels = Pixels(mean=config.mean, std=config.std)
    if faults := pixel_faults(pixels):
        raise ConfigError(*faults)
    for path in (own, config.continue_from, config.init_from):
        if path is not None and (path is not own or own.exists()):  # type: ignore[union-attr]
            return Weights(config.arch, config.model_args, read_any(path), str(path), pixels)
    return Weights(config.arch, config.model_args, where="model.args.pretrained", pixels=pixels)


def task_of(config: RunConfig) -> Task:
    """The task of a run, its data loaded.

    Raises:
        ConfigError, DataError, CheckpointError: it cannot be had.
    """
    weights = weights_of(config)
    task = tasks.load(config.task, config.dataset, weights)
    check_pixels(task, weights)
    return task


def prepared_for(config: RunConfig, task: Task | None) -> Task:
    """`task_of`, or a task that is loaded already, as the weights of this run want it."""
    if task is None:
        return task_of(config)
    weights = weights_of(config)
    task = task.wanted_by(weights, config.dataset)
    check_pixels(task, weights)
    return task


def check_pixels(task: Task, weights: Weights) -> None:
    """Raises ConfigError where the user says what pixels the weights want, and the task cannot give them these."""
    said = weights.pixels
    if said.mean is None or said.std is None:
        return
    found = task.described().get("preprocessing")
    if found is None:
        raise ConfigError(Fault("mean", f"is for images that are classified, not for {task.name}", list(said.mean)))
    if (tuple(found["mean"]), tuple(found["std"])) == (said.mean, said.std):
        return
    now = [list(said.mean), list(said.std)]
    if len(found["mean"]) != len(said.mean):
        rule = f"must have {len(found['mean'])} numbers each, as the images of {task.name} have channels"
        raise ConfigError(Fault("mean, std", rule, now, "see --channels"))
    if weights.content is not None and weights.content.get("plain"):
        raise ConfigError(Fault("mean, std", f"have no use: {task.name} gives images that are used as they are", now))
    rule = f"are for plain weights; {weights.where} says its own, {found['mean']} and {found['std']}"
    raise ConfigError(Fault("mean, std", rule, now, "leave them out"))


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
