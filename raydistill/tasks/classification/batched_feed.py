"""Batches of a `BatchedDataset` on the training device: torch's own datasets and loaders, read as training goes on.

Order and chance follow (seed, epoch): torch's, numpy's and Python's generators are set for the source, and what the
training loop had of them is put back before it goes on. So a resumed run sees what an uninterrupted one sees, and so do
several ranks, of which each reads a DataLoader or an IterableDataset whole and takes its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from raydistill.datasets import BatchedDataset, Preprocessing
from raydistill.datasets.batches import images_and_labels
from raydistill.datasets.chance import Chance, begin, tell
from raydistill.datasets.items import halves, label_of, pixels, stacked
from raydistill.datasets.preprocessing import LUMINANCE
from raydistill.datasets.split import raw_stream, seeded_permutation
from raydistill.errors import DataError, Fault
from raydistill.tasks.base import TRAIN, Loading
from raydistill.tasks.classification.feed import Batch, Prepare, check_batch_size
from raydistill.tasks.feeds import batch_bounds, own_rows, row_counts, share

_CHANCE = 3
"""Its stream, beside those of order, crops and flips."""

Item = tuple[np.ndarray, "int | np.ndarray"]


class BatchedFeed:
    """One split. A DataLoader's batches are as large as it makes them; others are cut to the run's batch size.

    loading.fraction: of a DataLoader's batches, the first ones; else of the images, for train other ones in each epoch.
    samples: of the train split, of all ranks; else of this one.

    Raises:
        DataError: from `epoch`: batches of other sizes than were announced, or something that is no image.
    """

    def __init__(self, dataset: BatchedDataset, split: str, loading: Loading, seen: Preprocessing) -> None:
        check_batch_size(loading.batch_size)
        self._dataset, self._split, self._loading = dataset, split, loading
        self._part = dataset.parts[split]
        self._where = f"dataset '{dataset.name}' {split}"
        argument = f"training.effective_{split}_size"
        if self._part.sizes:
            self._sizes = list(self._part.sizes[: share(len(self._part.sizes), loading.fraction, argument)])
        else:
            count = share(self._part.count, loading.fraction, argument)
            self._sizes = [stop - start for start, stop in batch_bounds(count, loading.batch_size)]
        self.batches = len(self._sizes)
        whole, own = sum(self._sizes), sum(self.rows(index)[0] for index in range(self.batches))
        self.samples = whole if split == TRAIN else own
        self._prepare = Prepare(dataset, dataset.preprocessing if dataset.as_they_are else seen, loading.device, True)

    def rows(self, index: int) -> tuple[int, int]:
        """(this rank's, all ranks') rows of a batch; 0 where it was given a row that is another's."""
        return row_counts(0, self._sizes[index], self._loading.ranks)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """All batches of one epoch (from 0); of others than train the same in each."""
        epoch = epoch if self._split == TRAIN else 0
        for images, labels in self._by_chance(epoch):
            yield self._seen(images), labels.to(self._loading.device)

    def _by_chance(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        chance = Chance(int(raw_stream(1, self._loading.seed, epoch, _CHANCE)[0] >> np.uint64(1)))
        with chance:
            drawn = self._drawn(epoch, chance.seed)
        while True:
            try:
                with chance:
                    batch = next(drawn, None)
            except DataError:
                raise
            except Exception as error:  # a user's own may fail in any way
                reason = f"{type(error).__name__}: {error}".strip().splitlines()[-1]
                raise DataError(Fault(self._where, f"cannot be read ({reason})")) from error
            if batch is None:
                return
            yield batch

    def _drawn(self, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        source = self._part.source
        if isinstance(source, DataLoader):
            begin(source, epoch, seed)
            return self._of_loader(source)
        if isinstance(source, IterableDataset):
            tell(source, epoch)
            return self._of_iterable(source)
        return self._of_items(source, epoch)

    def _of_loader(self, loader: DataLoader[object]) -> Iterator[tuple[Tensor, Tensor]]:
        batches = iter(loader)
        for index, size in enumerate(self._sizes):
            try:
                batch = next(batches)
            except StopIteration:
                raise DataError(Fault(self._where, f"must give {len(self._sizes)} batches an epoch", index)) from None
            images, labels = images_and_labels(batch, f"a batch of {self._where}")
            if len(images) != size:
                rule = f"batch {index} must have {size} rows in every epoch"
                raise DataError(Fault(self._where, rule, len(images), "use a sampler whose batches keep their sizes"))
            rows = self._own(size)
            if len(labels[rows]):
                yield images[rows], labels[rows]

    def _of_iterable(self, source: IterableDataset[object]) -> Iterator[tuple[Tensor, Tensor]]:
        items, size = iter(source), (self._dataset.image_size if self._dataset.resize else None)
        for index, count in enumerate(self._sizes):
            taken = [_arrays(item, self._where, self._dataset.channels, size) for item in islice(items, count)]
            if len(taken) < count:
                found = sum(self._sizes[:index]) + len(taken)
                raise DataError(Fault(self._where, f"must give {self._part.count} images, as its length says", found))
            images, labels = _collated(taken, self._where)
            rows = self._own(count)
            if len(labels[rows]):
                yield images[rows], labels[rows]

    def _of_items(self, source: Dataset[object], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        index = self._part.index
        count, used = self._part.count, sum(self._sizes)
        if self._split == TRAIN:
            order = seeded_permutation(count, self._loading.seed, epoch)[:used]
        else:
            order = np.sort(seeded_permutation(count, 0)[:used])
        positions = order if index is None else index[order]
        ends = np.cumsum(self._sizes).tolist()
        batches = [
            positions[start:stop][self._own(stop - start)].tolist()
            for start, stop in zip([0, *ends[:-1]], ends, strict=True)
        ]
        batches = [batch for batch in batches if batch]
        pin = self._loading.device.type == "cuda"
        loader: DataLoader[object] = DataLoader(
            _Items(source, self._where, self._dataset),
            batch_sampler=batches,
            num_workers=min(self._dataset.workers, len(batches)),
            collate_fn=_Collate(self._where),
            pin_memory=pin,
        )
        for batch in loader:
            if isinstance(batch, Fault):
                raise DataError(batch)
            images, labels = batch  # type: ignore[misc]
            yield images, labels

    def _own(self, size: int) -> slice:
        """This rank's rows of a batch: of train one at least, else perhaps none, as evaluation counts what it gets."""
        ranks = self._loading.ranks
        return own_rows(0, size, ranks) if self._split == TRAIN else slice(ranks.rank, size, ranks.world)

    def _seen(self, images: Tensor) -> Tensor:
        dataset = self._dataset
        images = _in_channels(images.to(self._loading.device), dataset.channels)
        kind, wanted = (images.is_floating_point(), tuple(images.shape[1:])), (dataset.as_they_are, dataset.image_shape)
        if kind != wanted:
            rule = f"all images must be {'float' if dataset.as_they_are else 'uint8'} of shape {dataset.image_shape}"
            raise DataError(Fault(self._where, rule, f"{images.dtype} {tuple(images.shape[1:])}"))
        if dataset.as_they_are:
            return images.to(torch.float32, memory_format=torch.channels_last)
        return self._prepare(images.permute(0, 2, 3, 1).contiguous())


class _Items(Dataset[object]):
    """A map-style dataset's items as arrays; a fault is a value: the loader would wrap an error in a traceback."""

    def __init__(self, source: Dataset[object], where: str, dataset: BatchedDataset) -> None:
        self._source, self._where, self._channels = source, where, dataset.channels
        self._size = dataset.image_size if dataset.resize else None

    def __getitem__(self, position: int) -> Item | Fault:
        where = f"{self._where}[{position}]"
        try:
            return _arrays(self._source[position], where, self._channels, self._size)
        except DataError as error:
            fault = error.faults[0]
            return fault if isinstance(fault, Fault) else Fault(where, str(fault))
        except Exception as error:  # a user's own may fail in any way
            return Fault(where, f"cannot be read ({type(error).__name__}: {error})")


class _Collate:
    """Items to (images (B, C, H, W), labels), or to the first fault among them."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __call__(self, items: Sequence[Item | Fault]) -> tuple[Tensor, Tensor] | Fault:
        for item in items:
            if isinstance(item, Fault):
                return item
        try:
            return _collated([item for item in items if not isinstance(item, Fault)], self._where)
        except DataError as error:
            fault = error.faults[0]
            return fault if isinstance(fault, Fault) else Fault(self._where, str(fault))


def _arrays(item: object, where: str, channels: str, size: tuple[int, int] | None) -> Item:
    image, label = halves(item, where)
    return pixels(image, where, channels, size), label_of(label, f"the label of {where}")


def _collated(items: Sequence[Item], where: str) -> tuple[Tensor, Tensor]:
    shapes = sorted({f"{image.dtype} {image.shape}" for image, _ in items})
    if len(shapes) > 1:
        rule, way_out = "all images must be of one size and type (H, W, C)", "resize them in its transforms"
        raise DataError(Fault(where, rule, " and ".join(shapes[:3]), way_out))
    images = torch.from_numpy(np.stack([image for image, _ in items])).permute(0, 3, 1, 2)
    return images, torch.from_numpy(stacked([label for _, label in items], where))


def _in_channels(images: Tensor, channels: str) -> Tensor:
    """(B, C, H, W) with three channels for ``rgb``, one for ``grey``."""
    if channels == "rgb" and images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    if channels == "grey" and images.shape[1] == 3:
        weights = torch.tensor(LUMINANCE, device=images.device).view(1, 3, 1, 1)
        mixed = (images.float() * weights).sum(1, keepdim=True)
        return mixed if images.is_floating_point() else mixed.round().to(torch.uint8)
    return images
