"""What the weights of a run depend on: it goes on only with the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from raydistill.errors import CheckpointError, Fault
from raydistill.parts import identity as of_parts
from raydistill.tasks import Task
from raydistill.training.checkpoint import schedule_hash
from raydistill.training.config import RunConfig
from raydistill.training.teacher import digest


def run_identity(
    config: RunConfig, task: Task, start: Mapping[str, Any] | None, arguments: Mapping[str, object]
) -> dict[str, object]:
    """Plain values, for the checkpoint. start: the one that it begins with. The number of epochs may grow."""
    return {
        "arch": config.arch,
        "model_args": dict(arguments),
        "dataset": task.name,
        **task.identity(config.dataset),
        **of_parts(config),
        **({} if config.train is None else {"train": asdict(config.train)}),
        "init": "random" if start is None else digest(start["model"]),
    }


def check_same_run(content: Mapping[str, Any], where: str, identity: Mapping[str, object], schedule_text: str) -> None:
    """Raises CheckpointError where a checkpoint is of a run with other values."""
    now = {**identity, "schedule": schedule_hash(schedule_text)}
    before = {**content["run"], "schedule": content["schedule_hash"]}
    for key in sorted({*now, *before} - {"preprocessing"}):  # which is the checkpoint's own
        if now.get(key) != before.get(key):
            way_out = "run with the same values, or choose another out_dir"
            raise CheckpointError(Fault(where, f"was trained with {key} {before.get(key)!r}", now.get(key), way_out))
