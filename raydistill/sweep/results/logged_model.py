"""A checkpoint's network as it is delivered, for MLflow: of a member of a front, or of a single run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from raydistill.compression.quantizers.frozen import floats_put_away
from raydistill.compression.quantizers.integers import written_in
from raydistill.errors import ConfigError, TrackingError
from raydistill.export import Deployed, deployed
from raydistill.export.formats.onnx import Onnx
from raydistill.export.integers.aten import AtenOperators
from raydistill.records import EpochMetrics, Evaluation
from raydistill.tasks import VALIDATION, Loading, Task, Weights
from raydistill.tracking import LoggedMember, SweepLog
from raydistill.training import read_checkpoint
from raydistill.training.footprint import figures_of


@dataclass(frozen=True)
class Delivered:
    """network: thinned and folded. example: validation samples as it wants them: of images (2, C, H, W) float32, of
    text int64 tokens; of a detector one image, (3, H, W)."""

    network: Deployed
    example: np.ndarray

    @property
    def figures(self) -> dict[str, float]:
        """What it costs: see `metrics.FOOTPRINT`."""
        return figures_of(self.network.model, self.network.batch(1))

    @property
    def _about(self) -> dict[str, Any]:
        """What stands beside the model in MLflow."""
        network = self.network
        said = {
            "preprocessing": network.preprocessing,
            "classes": network.classes,
            "multi_label": network.network.content.get("multi_label"),
            "deployed": self.changes,
        }
        return {name: value for name, value in said.items() if value}

    @property
    def changes(self) -> str:
        return "; ".join(self.network.deployment.lines)

    def log(
        self,
        log: SweepLog,
        run: str,
        last: EpochMetrics,
        test: Evaluation | None,
        params: Mapping[str, object],
    ) -> LoggedMember:
        """Send it as a model of a run. run: a trial's id, or `tracking.PARENT`.

        Raises:
            TrackingError: torch.export cannot trace it, or ONNX not hold it.
            StorageError: the storage cannot take it.
        """
        metrics = {**last.metrics, "sparsity": last.sparsity, **last.footprint}
        metrics |= test.named_by_split if test is not None else {}
        model, params = self.network.model, {**params, "deployed": self.changes}
        if not self.network.kind.BATCHED:
            return log.log_detector(run, _onnx(self.network), self.example, metrics, params, self._about)
        with written_in(model, AtenOperators()), floats_put_away(self.network.network_itself):
            return log.log_model(run, model, self.example, metrics, params, self._about)


def delivered(task: Task, checkpoint: str | Path, arch: str | None = None) -> Delivered | None:
    """None where the network is called with neither one tensor nor a list of images. arch: see
    `training.checkpoint.load_model`.

    Raises:
        CheckpointError, ConfigError: it cannot be used.
    """
    content = read_checkpoint(checkpoint)
    task = task.wanted_by(Weights.of_checkpoint(content, str(checkpoint), arch))
    batch = next(task.feed(VALIDATION, Loading(torch.device("cpu"), 2)).epoch(0))
    first = task.inputs(batch)[0]
    if isinstance(first, (list, tuple)):
        found = deployed(checkpoint, arch, example=task.example_input)
        return None if found.kind.BATCHED else Delivered(found, found.inputs[0].numpy())
    if not isinstance(first, torch.Tensor):
        return None
    example = first.contiguous()
    return Delivered(deployed(checkpoint, arch, (example,), task.example_input), example.numpy())


def _onnx(network: Deployed) -> bytes:
    """A detector as a file: torch.export, which MLflow's other models go through, cannot follow boxes.

    Raises:
        TrackingError: it cannot be written as one.
    """
    form = Onnx()
    try:
        form.check("onnx")
        with tempfile.TemporaryDirectory() as folder:
            (name,) = form.write(network, Path(folder))
            return (Path(folder) / name).read_bytes()
    except ConfigError as error:
        raise TrackingError(*error.faults) from error
