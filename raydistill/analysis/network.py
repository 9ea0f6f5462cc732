"""A checkpoint, raydistill's or Distiller's, as a network to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raydistill import models
from raydistill.compression.structure import Change
from raydistill.datasets import DatasetConfig
from raydistill.tasks import Task, Weights
from raydistill.tasks.classification.preprocessing import described, of_checkpoint
from raydistill.training.checkpoint import arch_of, built
from raydistill.training.distiller_checkpoint import read_any
from raydistill.training.inputs import example_inputs


@dataclass(frozen=True)
class Network:
    """content: of its checkpoint, with what it leaves unsaid of its preprocessing and architecture. model: on the CPU,
    in eval mode. structure: the changes that made it of what its factory builds."""

    path: Path
    content: Mapping[str, Any]
    model: nn.Module
    structure: tuple[Change, ...] = ()

    @property
    def arch(self) -> str:
        return str(self.content["run"]["arch"])

    @property
    def weights(self) -> Weights:
        return Weights.of_checkpoint(self.content, str(self.path))

    def task(self, task: Task, data: DatasetConfig | None = None) -> Task:
        """The task as this network wants its data, unless the user's `data` say otherwise."""
        return task.wanted_by(self.weights, data)

    def example_input(self, rows: int = 1) -> tuple[Tensor, ...]:
        """Samples of the shape it was trained on; Distiller's checkpoints do not say it, their arch does."""
        if "image_shape" in self.content:
            return (torch.zeros(rows, *self.content["image_shape"]),)
        if "inputs" in self.content:
            return example_inputs(self.content["inputs"], rows)
        arguments = {**self.content.get("sizes", {}), **self.content["run"]["model_args"]}
        return models.example_input(self.arch, arguments, rows, num_classes=self.content.get("num_classes"))


def read_network(checkpoint: Path, arch: str | None = None) -> Network:
    """arch: what the user calls it.

    Raises:
        CheckpointError: it cannot be used, is of another architecture, or does not say of which.
    """
    content = read_any(checkpoint)
    known = arch_of(content, str(checkpoint), arch)
    seen = of_checkpoint(content, str(checkpoint), known)
    said = {} if seen is None else described(seen)
    content = {**content, **said, "run": {**content["run"], "arch": known}}
    return Network(checkpoint, content, *built(content, str(checkpoint), known))
