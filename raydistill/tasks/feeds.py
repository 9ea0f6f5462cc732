"""Feeds for tasks of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raydistill.compression.ranks import Ranks
from raydistill.datasets.split import seeded_permutation
from raydistill.errors import ConfigError, Fault
from raydistill.tasks.base import TRAIN, Batch, Feed, Loading, Task


class TensorFeed:
    """A split that lies in memory: tensors of one length, a batch is a tuple of their rows on the device.

    The train split is shuffled by (seed, epoch); its last batch, should it be a single row, joins the one before.
    """

    def __init__(self, tensors: tuple[Tensor, ...], split: str, loading: Loading) -> None:
        lengths = {len(tensor) for tensor in tensors}
        if len(lengths) != 1 or not max(lengths):
            raise ConfigError(Fault(f"split {split}", "must have tensors of one length, above 0", sorted(lengths)))
        self._tensors, self._loading, self._shuffled = tensors, loading, split == TRAIN
        self._all = lengths.pop()
        self.samples = share(self._all, loading.fraction, f"training.effective_{split}_size")
        self._bounds = batch_bounds(self.samples, loading.batch_size)
        self.batches = len(self._bounds)

    def rows(self, index: int) -> tuple[int, int]:
        return row_counts(*self._bounds[index], self._loading.ranks)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        if self._shuffled:
            order = seeded_permutation(self._all, self._loading.seed, epoch)[: self.samples]
        else:
            order = np.sort(seeded_permutation(self._all, 0)[: self.samples])
        for start, stop in self._bounds:
            rows = torch.from_numpy(order[own_rows(start, stop, self._loading.ranks)])
            yield tuple(tensor[rows].to(self._loading.device) for tensor in self._tensors)


class ListFeed:
    """Batches made by a function of the epoch: tensors in tuples, lists and mappings of any nesting, on the CPU.

    make: gives the same number of batches, of the same sizes, in every epoch. Of several ranks each takes every
    world-th row of every tensor; a tensor without rows goes to all of them.
    """

    def __init__(self, make: Callable[[int], list[Batch]], loading: Loading) -> None:
        self._make, self._loading = make, loading
        self._sizes = [_rows(batch) for batch in make(0)]
        self.batches, self.samples = len(self._sizes), sum(self._sizes)

    def rows(self, index: int) -> tuple[int, int]:
        return row_counts(0, self._sizes[index], self._loading.ranks)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        for batch, size in zip(self._make(epoch), self._sizes, strict=True):
            yield _moved(batch, own_rows(0, size, self._loading.ranks), self._loading.device)


class Kept:
    """Another feed's batches, made once and kept on the device: for a split that is looked at again and again."""

    def __init__(self, feed: Feed) -> None:
        self._batches = list(feed.epoch(0))
        self._rows = [feed.rows(index) for index in range(feed.batches)]
        self.samples, self.batches = feed.samples, feed.batches

    def rows(self, index: int) -> tuple[int, int]:
        return self._rows[index]

    def epoch(self, epoch: int) -> Iterator[Batch]:
        return iter(self._batches)


def training_batches(task: Task, loading: Loading) -> Callable[[], Iterable[Sequence[object]]]:
    """A part of the training data as a network is called with it, the same each time. loading: with the part."""
    feed = task.feed(TRAIN, loading)

    def batches() -> Iterable[Sequence[Any]]:
        for batch in feed.epoch(0):
            yield task.inputs(batch)

    return batches


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """(start, stop) of each batch. The last one may be smaller; of a single sample it joins the one before, because
    batch norm cannot learn from one sample."""
    bounds = [(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    if len(bounds) > 1 and batch_size > 1 and bounds[-1][1] - bounds[-1][0] == 1:
        (start, _), (_, stop) = bounds[-2:]
        bounds[-2:] = [(start, stop)]
    return bounds


def row_counts(start: int, stop: int, ranks: Ranks) -> tuple[int, int]:
    """(this rank's, all ranks') rows of the batch from start to stop."""
    return len(range(start + ranks.rank, stop, ranks.world)), stop - start


def own_rows(start: int, stop: int, ranks: Ranks) -> slice:
    """A rank's rows of the batch from start to stop, in their order; the first row where it has none."""
    if start + ranks.rank >= stop:
        return slice(start, start + 1)
    return slice(start + ranks.rank, stop, ranks.world)


def share(count: int, fraction: float, argument: str) -> int:
    """How many of `count` samples a fraction in (0, 1] takes; one at least."""
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0.0 < fraction <= 1.0:
        raise ConfigError(Fault(argument, "must be a fraction above 0 and up to 1", fraction))
    return min(count, max(1, round(count * fraction)))


def _rows(batch: Batch) -> int:
    """Of the first tensor that has any."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 0
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (list, tuple)) else ()
    return next((rows for rows in map(_rows, parts) if rows), 0)


def _moved(batch: object, rows: slice, device: torch.device) -> object:
    if isinstance(batch, Tensor):
        return (batch[rows] if batch.dim() else batch).to(device)
    if isinstance(batch, Mapping):
        return {key: _moved(part, rows, device) for key, part in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(_moved(part, rows, device) for part in batch)
    return batch
