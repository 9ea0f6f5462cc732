"""TensorBoard events of one run: its metrics, learning rate, sparsity in total and per layer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from torch import nn

from raydistill.errors import StorageError
from raydistill.files import unwritable
from raydistill.records import EpochMetrics

_FLUSH_S = 30.0
_POSITIVE = 1e-12 * 1.1 ** np.arange(774)
_BUCKETS = [*-_POSITIVE[::-1], 0.0, *_POSITIVE]
"""TensorBoard's own histogram buckets: up to 1e20, each a tenth wider than the one before."""


class EventLog:
    """Writes one set of scalars an epoch. `folder` None writes nothing.

    A resumed run purges what an interrupted one wrote past its last checkpoint, so no epoch shows twice.

    Raises:
        StorageError: in every method: the events cannot be written.
    """

    def __init__(self, folder: Path | None, first_epoch: int) -> None:
        self._writer = _Writer(folder, first_epoch) if folder is not None else None

    def write(self, metrics: EpochMetrics) -> None:
        if self._writer is None:
            return
        scalars = {
            **({} if metrics.train_loss is None else {"loss/train": metrics.train_loss}),
            **{f"{name}/validation": value for name, value in metrics.metrics.items()},
            "learning_rate": metrics.learning_rate,
            "sparsity/total": metrics.sparsity,
            "samples_per_second": metrics.samples_per_second,
            **{f"sparsity/{name}": value for name, value in metrics.layer_sparsity.items()},
        }
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, metrics.epoch)
        self._writer.flush(_FLUSH_S)

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
            try:
                self._writer.flush()
            except StorageError:
                if error is None:  # what ended the run is what the user has to hear
                    raise


class _Writer:
    """Writes in the caller's thread. tensorboardX's SummaryWriter has a thread of its own, which a full disk ends
    without a word; its queue then blocks the training for ever.
    """

    def __init__(self, folder: Path, first_epoch: int) -> None:
        self._folder = folder
        self._flushed = time.monotonic()
        with self._guarded():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = EventsWriter(str(folder / "events"))
        if first_epoch:
            self._add(Event(session_log=SessionLog(status=SessionLog.START)), first_epoch)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self._add(Event(summary=summary.scalar(name, value)), step)

    def add_histogram(self, name: str, values: Any, step: int) -> None:
        self._add(Event(summary=summary.histogram(name, values, _BUCKETS)), step)

    def flush(self, every_s: float = 0.0) -> None:
        """Bring all to the disk if the last time is `every_s` ago: each takes a disk's sync."""
        if time.monotonic() - self._flushed >= every_s:
            with self._guarded():
                self._file.flush()
            self._flushed = time.monotonic()

    def _add(self, event: Any, step: int) -> None:
        event.wall_time, event.step = time.time(), step
        with self._guarded():
            self._file.write_event(event)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self._folder / "events.out.tfevents", error) from error
