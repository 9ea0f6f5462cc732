"""What of a run is kept from epoch to epoch: made into a checkpoint, and taken up from one, by `fit`'s own loop and by
one of the user's alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn
from torch.optim import Optimizer

from raydistill.compression import CompressionScheduler
from raydistill.compression.structure import structure_state
from raydistill.errors import CheckpointError
from raydistill.records import EpochMetrics
from raydistill.tasks import Task
from raydistill.training import checkpoint as saved
from raydistill.training.distiller_checkpoint import optimizer_state
from raydistill.training.identity import check_same_run
from raydistill.training.inputs import inputs_state
from raydistill.training.optimizer import order_of

_NEEDED = ("schedule_hash", "optimizer", "scheduler", "rng", "history")


@dataclass(frozen=True)
class Kept:
    """identity: what the weights depend on, see `run_identity`. schedule_text: "" where the run is dense.
    optimizer_name: as the run calls its class. asked: the task as the user named it, see `tasks.of_checkpoint`."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: CompressionScheduler
    task: Task
    identity: Mapping[str, object]
    schedule_text: str
    optimizer_name: str
    asked: Mapping[str, object] = field(default_factory=dict)

    def content(self, precision: str, history: Sequence[EpochMetrics], **more: object) -> dict[str, Any]:
        """A checkpoint after the last epoch of `history`. precision: it was trained in. more: keys that only one of the
        two loops has."""
        return {
            "epoch": history[-1].epoch,
            "run": self.identity,
            "schedule": self.schedule_text,
            "schedule_hash": saved.schedule_hash(self.schedule_text),
            "precision": precision,
            "dataset": self.task.name,
            **({"task": dict(self.asked)} if self.asked else {}),
            **self.task.described(),
            **({"inputs": self._inputs} if self._inputs else {}),
            "model": self.model.state_dict(),
            "structure": structure_state(self.scheduler.structure),
            "optimizer": self.optimizer.state_dict(),
            "optimizer_name": self.optimizer_name,
            "scheduler": self.scheduler.state_dict(),
            "rng": saved.rng_state(),
            "history": [metrics.to_json() for metrics in history],
            **more,
        }

    @cached_property
    def _inputs(self) -> list[dict[str, Any]]:
        before = saved.rng_state()  # a user's task may draw its example
        try:
            return inputs_state(self.task.example_input(1), self.task.example_input(2))
        finally:
            saved.set_rng_state(before)

    def resume(
        self,
        content: Mapping[str, Any],
        where: str,
        take_weights: Callable[[Mapping[str, Any], str], None] | None = None,
        random_state: bool = True,
    ) -> list[EpochMetrics]:
        """Take up the state of this run's own checkpoint and return the epochs it has trained. take_weights: in the
        place of this one's.

        Raises:
            CheckpointError: it is damaged, or of another run.
        """
        saved.require(content, where, *_NEEDED)
        check_same_run(content, where, self.identity, self.schedule_text)
        (take_weights or self.take_weights)(content, where)
        state, fault = self.optimizer_state(content, where)
        if state is None:
            raise CheckpointError(fault)
        self.optimizer.load_state_dict(state)
        self.scheduler.load_state_dict(content["scheduler"])
        if random_state:
            saved.set_rng_state(content["rng"])
        return [EpochMetrics.from_json(entry) for entry in content["history"]]

    def take_weights(self, content: Mapping[str, object], where: str) -> None:
        self.scheduler.structure = saved.load_weights(self.model, content, where, self.scheduler.structure)

    def optimizer_state(self, content: Mapping[str, object], where: str) -> tuple[dict[str, object] | None, str]:
        """See `raydistill.training.distiller_checkpoint.optimizer_state`."""
        names, groups = order_of(self.model, self.optimizer), len(self.optimizer.param_groups)
        return optimizer_state(content, names, where, self.optimizer_name, groups)
