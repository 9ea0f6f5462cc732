"""TensorBoard events of one run: loss, top1, learning rate, sparsity in total and per layer."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from tensorboardX import SummaryWriter
from torch import nn

from raydistill.records import EpochMetrics


class EventLog:
    """Writes one set of scalars an epoch. `folder` None writes nothing.

    A resumed run purges what an interrupted one wrote past its last checkpoint, so no epoch shows twice.
    """

    def __init__(self, folder: Path | None, first_epoch: int) -> None:
        self._writer = None
        if folder is not None:
            purge = first_epoch if first_epoch else None
            self._writer = SummaryWriter(str(folder), purge_step=purge, flush_secs=30)

    def write(self, metrics: EpochMetrics) -> None:
        if self._writer is None:
            return
        scalars = {
            "loss/train": metrics.train_loss,
            "loss/validation": metrics.loss,
            "top1/validation": metrics.top1,
            "top5/validation": metrics.top5,
            "learning_rate": metrics.learning_rate,
            "sparsity/total": metrics.sparsity,
            "images_per_second": metrics.images_per_second,
            **{f"sparsity/{name}": value for name, value in metrics.layer_sparsity.items()},
            **{f"exits/{name}": value for name, value in metrics.exits.items()},
        }
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, metrics.epoch)

    def parameters(self, model: nn.Module, epoch: int) -> None:
        """A histogram of each parameter."""
        if self._writer is not None:
            from raydistill.compression.statistics import write_parameter_histograms

            write_parameter_histograms(self._writer, model, epoch)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
