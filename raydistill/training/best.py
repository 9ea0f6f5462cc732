"""The best epochs of a run, and a copy of the checkpoint of the very best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from raydistill.files import write_atomically
from raydistill.metrics import Metric, selecting
from raydistill.records import EpochMetrics

FILE_NAME = "best.pt"


class BestEpochs:
    """By sparsity, then by the metric that selects, as a pruning run's user wants them. history: epochs so far."""

    def __init__(self, count: int, history: Sequence[EpochMetrics], metrics: Mapping[str, Metric]) -> None:
        self._count = count
        self._name = selecting(metrics)
        self._metric = metrics[self._name]
        self._all = list(history)

    def add(self, metrics: EpochMetrics) -> bool:
        """Whether this epoch is the best of all."""
        self._all.append(metrics)
        return self.best()[0] is metrics

    def keep(self, metrics: EpochMetrics, checkpoint: Path) -> None:
        """Add an epoch, and copy its checkpoint to ``best.pt`` beside it if it is the best of all.

        Raises:
            StorageError: it cannot be written.
        """
        if self.add(metrics):
            write_atomically(checkpoint.with_name(FILE_NAME), checkpoint.read_bytes())

    def best(self) -> list[EpochMetrics]:
        return sorted(self._all, key=self._order, reverse=True)[: self._count]

    def _order(self, epoch: EpochMetrics) -> tuple[float, float]:
        value = epoch.metrics[self._name]
        return epoch.sparsity, value if self._metric.maximise else -value
