"""TensorBoard events of one run: by epoch its metrics, learning rate, sparsity in total and per layer, of elements and
of 2D structures, and the magnitudes of filters; by minibatch the loss and the learning rate."""

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


STEPS = "steps"
"""The folder of what is told by minibatch. TensorBoard drops, of all that lies in a folder, what is past the step that
a resumed run begins with; epochs and minibatches do not count alike."""

_POINTS = 100
"""How many points of an epoch are kept, at most."""


class EventLog:
    """Writes one set of scalars an epoch. `folder` None writes nothing. steps: minibatches of an epoch; 0
    in a pack, where nobody tells of them.

    A resumed run purges what an interrupted one wrote past its last checkpoint, so no epoch shows twice.

    Raises:
        StorageError: in every method: the events cannot be written.
    """

    def __init__(self, folder: Path | None, first_epoch: int, steps: int = 0) -> None:
        self._writer = _Writer(folder, first_epoch) if folder is not None else None
        self._steps = _Writer(folder / STEPS, first_epoch * steps) if folder is not None and steps else None
        self._count = steps
        self._every = -(-steps // _POINTS) if steps else 1
        self._told = (0, 0.0, 0)

    def step(self, epoch: int, index: int, total: float, samples: int, learning_rate: float) -> None:
        """After a minibatch whose loss was looked at. total: of the losses of the epoch's samples so far; what is
        written is the mean since the last point."""
        if self._steps is None or index % self._every:
            return
        before = self._told if self._told[0] == epoch else (epoch, 0.0, 0)
        self._told = (epoch, total, samples)
        if samples > before[2]:
            at = epoch * self._count + index
            self._steps.add_scalar("loss/minibatch", (total - before[1]) / (samples - before[2]), at)
            self._steps.add_scalar("learning_rate/minibatch", learning_rate, at)
            self._steps.flush(_FLUSH_S)

    def structures(self, model: nn.Module, epoch: int) -> None:
        """Of each weight ``sparsity_2d/NAME``; not in a pack, whose trials have epochs of milliseconds."""
        if self._writer is not None and self._count:
            from raydistill.compression.statistics.structures import structure_sparsity

            for name, value in structure_sparsity(model).items():
                self._writer.add_scalar(f"sparsity_2d/{name}", value, epoch)

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
        """A histogram of each parameter, and of each weight's filters: their magnitudes, ``filter_magnitude/NAME``."""
        if self._writer is not None:
            from raydistill.compression.statistics import write_parameter_histograms
            from raydistill.compression.statistics.structures import filter_magnitudes

            write_parameter_histograms(self._writer, model, epoch)
            for name, values in filter_magnitudes(model).items():
                if np.isfinite(values).all():
                    self._writer.add_histogram(f"filter_magnitude/{name}", values, epoch)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in filter(None, (self._writer, self._steps)):
            try:
                writer.flush()
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

    def add_histogram(self, name: str, values: object, step: int) -> None:
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
