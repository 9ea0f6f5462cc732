"""Batches on the training device: augmented for training, plain for evaluation.

A dataset in memory stays uint8: on a CPU the shared arrays are read where they are (they may be read-only), on a GPU
they are copied to it once. A streamed one is decoded by worker processes (`streaming`). Both give the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from raydistill.compression.ranks import Ranks
from raydistill.datasets import ArrayDataset, Dataset, Preprocessing, StreamedDataset
from raydistill.datasets.augmentation import Augmentation, batch_generator, own_augmentation
from raydistill.datasets.split import seeded_permutation
from raydistill.errors import ConfigError, Fault
from raydistill.tasks.classification.augment import EpochDraw, Fit, Normalise, WindowGather, draw_epoch, gather_pixels
from raydistill.tasks.feeds import batch_bounds, own_rows, row_counts, share

Batch = tuple[torch.Tensor, torch.Tensor]
"""images float32 (B, 3, H, W), normalised; labels int64 (B,), or uint8 (B, classes) where an image has several."""


class TrainFeed:
    """The train split, shuffled and augmented; order, crops and flips depend on (seed, epoch) only, and so does an
    augmentation of one's own.

    fraction: of the train images that one epoch takes, other ones in each. samples: train images an epoch. batches:
    batches an epoch. ranks: `batch_size` is of all of them together, and this feed gives the rows of this one: every
    world-th of each batch from its rank on. A batch that has none for it gives one all the same, which counts for
    nothing: see `rows`. preprocessing: what the weights want; None: the dataset's own.

    Raises:
        ConfigError: a batch size below 1, a negative seed, or a fraction outside (0, 1].
    """

    def __init__(
        self,
        dataset: ArrayDataset | StreamedDataset,
        batch_size: int,
        device: torch.device | str,
        seed: int,
        channels_last: bool = True,
        fraction: float = 1.0,
        ranks: Ranks | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        dataset, seen = _seen_as(dataset, preprocessing)
        check_batch_size(batch_size)
        if seed < 0:
            raise ConfigError(Fault("training.seed", "must be 0 or more", seed))
        self._dataset, self._device, self._seed = dataset, torch.device(device), seed
        self._all = len(dataset.train_index)
        self.samples = share(self._all, fraction, "training.effective_train_size")
        self._bounds = batch_bounds(self.samples, batch_size)
        self.batches = len(self._bounds)
        self._ranks = ranks or Ranks()
        self._own = own_augmentation(dataset.augment) if ":" in dataset.augment else None
        self._slices = [  # one's own augmentation is given all ranks' rows
            slice(start, stop) if self._own else own_rows(start, stop, self._ranks) for start, stop in self._bounds
        ]
        self._normalise = Prepare(dataset, seen, self._device, channels_last)
        self._resident: tuple[torch.Tensor, torch.Tensor] | None = None
        self._windows: WindowGather | None = None
        if isinstance(dataset, ArrayDataset):
            if self._device.type == "cpu":
                channels, height, width = dataset.image_shape
                largest = max(len(range(self.samples)[rows]) for rows in self._slices)
                dtype = torch.float32 if dataset.as_they_are else torch.uint8
                self._windows = WindowGather(largest, height, width, channels, dtype)
            else:
                self._resident = _to_device(dataset, dataset.train_index, self._device)

    def rows(self, index: int) -> tuple[int, int]:
        """(this rank's, all ranks') rows of a batch; 0 where it was given a row that is another's."""
        return row_counts(*self._bounds[index], self._ranks)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """All batches of one epoch (from 0)."""
        draw = self._draw(epoch)
        if isinstance(self._dataset, StreamedDataset):
            batches = self._streamed(self._dataset, draw)
        elif self._resident is not None:
            batches = self._gathered(*self._resident, draw)
        else:
            batches = self._windowed(self._dataset, draw)
        for index, (images, labels) in enumerate(batches):
            if self._own is not None:
                images, labels = self._changed(self._own, images, labels, epoch, index)
            yield self._normalise(images), labels

    def _changed(self, own: Augmentation, images: torch.Tensor, labels: torch.Tensor, epoch: int, index: int) -> Batch:
        """This rank's rows of a whole batch of uint8 images (B, H, W, C)."""
        generator = batch_generator(self.batches, index, self._seed, epoch)
        changed = own(images.permute(0, 3, 1, 2), generator).permute(0, 2, 3, 1)
        rows = own_rows(0, len(images), self._ranks)
        return changed[rows].contiguous(), labels[rows]

    def _draw(self, epoch: int) -> EpochDraw:
        """The epoch's draw with the flipped images of each batch first, so that a flip is one block and not many;
        order within a batch is free, and this way it is the same on every device."""
        draw = draw_epoch(self._all, self._dataset.augment, self._seed, epoch)
        if self.samples < self._all:
            draw = EpochDraw(*(getattr(draw, name)[: self.samples] for name in ("order", "dy", "dx", "flip")))
        batch: np.ndarray = np.repeat(np.arange(self.batches), [stop - start for start, stop in self._bounds])
        place = np.argsort(batch * 2 + ~draw.flip, kind="stable")
        return EpochDraw(draw.order[place], draw.dy[place], draw.dx[place], draw.flip[place])

    def _windowed(self, dataset: ArrayDataset, draw: EpochDraw) -> Iterator[Batch]:
        assert self._windows is not None  # a CPU feed has it
        augmented = dataset.augment != "none" and self._own is None
        for own in self._slices:
            rows = dataset.train_index[draw.order[own]]
            images = _take(dataset.train_images, rows)
            if augmented:
                flipped = int(draw.flip[own].sum())
                images = self._windows(images, draw.dy[own], draw.dx[own], flipped)
            yield images, torch.from_numpy(dataset.train_labels[rows])

    def _gathered(self, images: torch.Tensor, labels: torch.Tensor, draw: EpochDraw) -> Iterator[Batch]:
        order, dy, dx, flip = (
            torch.from_numpy(values).to(self._device) for values in (draw.order, draw.dy, draw.dx, draw.flip)
        )
        augmented = self._dataset.augment != "none" and self._own is None
        for own in self._slices:
            rows = order[own]
            batch = images.index_select(0, rows)
            if augmented:
                batch = gather_pixels(batch, dy[own], dx[own], flip[own])
            yield batch, labels.index_select(0, rows)

    def _streamed(self, dataset: StreamedDataset, draw: EpochDraw) -> Iterator[Batch]:
        # imported here: torchvision takes seconds that a trial on arrays does not have to spend
        from raydistill.tasks.classification.streaming import stream

        own: np.ndarray = np.concatenate([np.arange(self.samples)[rows] for rows in self._slices])
        positions = dataset.train_index[draw.order[own]]
        crops = None if dataset.augment == "none" or self._own else np.stack([draw.dy, draw.dx, draw.flip], axis=1)[own]
        ends = np.cumsum([len(range(self.samples)[rows]) for rows in self._slices]).tolist()
        bounds = list(zip([0, *ends[:-1]], ends, strict=True))
        yield from stream(dataset, dataset.train_files, dataset.train_labels, positions, bounds, self._device, crops)


class EvalFeed:
    """One split as it is, in its own order: ``validation``, ``test`` or ``train`` (without augmentation).

    fraction: of the split's images that are taken, always the same ones. ranks: this feed gives every world-th of them,
    from the rank on. samples: how many it gives, which may be none. preprocessing: as in `TrainFeed`.
    """

    def __init__(
        self,
        dataset: ArrayDataset | StreamedDataset,
        split: str,
        batch_size: int,
        device: torch.device | str,
        channels_last: bool = True,
        fraction: float = 1.0,
        ranks: Ranks | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        dataset, seen = _seen_as(dataset, preprocessing)
        check_batch_size(batch_size)
        if split not in ("train", "validation", "test"):
            raise ConfigError(Fault("split", "must be train, validation or test", split))
        self._dataset, self._device = dataset, torch.device(device)
        self._is_test = split == "test"
        index = {"train": dataset.train_index, "validation": dataset.validation_index}
        self._index = np.arange(len(dataset.test_labels)) if self._is_test else index[split]
        self.samples = share(len(self._index), fraction, f"training.effective_{split}_size")
        if self.samples < len(self._index):
            self._index = np.sort(self._index[seeded_permutation(len(self._index), 0)[: self.samples]])
        if ranks is not None and ranks.several:
            self._index = self._index[ranks.rank :: ranks.world]
            self.samples = len(self._index)
        self._bounds = [(start, min(start + batch_size, self.samples)) for start in range(0, self.samples, batch_size)]
        self.batches = len(self._bounds)
        self._normalise = Prepare(dataset, seen, self._device, channels_last)

    def rows(self, index: int) -> tuple[int, int]:
        """(this rank's rows of a batch, the same): evaluation adds up what each rank has counted."""
        start, stop = self._bounds[index]
        return stop - start, stop - start

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """All batches, the same ones in every epoch."""
        return iter(self)

    def __iter__(self) -> Iterator[Batch]:
        dataset = self._dataset
        labels = dataset.test_labels if self._is_test else dataset.train_labels
        if isinstance(dataset, StreamedDataset):
            from raydistill.tasks.classification.streaming import stream

            files = dataset.test_files if self._is_test else dataset.train_files
            for images, batch_labels in stream(dataset, files, labels, self._index, self._bounds, self._device, None):
                yield self._normalise(images), batch_labels
            return
        pixels = dataset.test_images if self._is_test else dataset.train_images
        for start, stop in self._bounds:
            rows = self._index[start:stop]
            images = _take(pixels, rows).to(self._device)
            yield self._normalise(images), torch.from_numpy(labels[rows]).to(self._device)


class Prepare:
    """uint8 images of a dataset to what the network sees."""

    def __init__(self, dataset: Dataset, seen: Preprocessing, device: torch.device, channels_last: bool) -> None:
        self._fit = Fit(dataset.preprocessing, seen)
        self._normalise = Normalise(seen.mean, seen.std, seen.image_size, device, channels_last)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self._normalise(self._fit(images))


def _seen_as(
    dataset: ArrayDataset | StreamedDataset, wanted: Preprocessing | None
) -> tuple[ArrayDataset | StreamedDataset, Preprocessing]:
    """The dataset, its files decoded as `wanted` says, and what the network is to see."""
    if wanted is None or dataset.as_they_are:
        return dataset, dataset.preprocessing
    other = (wanted.image_size, wanted.resize) != (dataset.image_shape[1:], dataset.preprocessing.resize)
    if isinstance(dataset, StreamedDataset) and other:
        grey = wanted.channels == "grey"
        dataset = replace(
            dataset, image_size=wanted.image_size, resize=True, shorter_side=wanted.resize,
            interpolation=wanted.interpolation, channels="grey" if grey else "rgb",
            mean=wanted.mean, std=wanted.std,
        )  # fmt: skip
    return dataset, wanted


def _take(images: np.ndarray, rows: np.ndarray) -> torch.Tensor:
    """Rows of a (possibly read-only) array as a new tensor; only these rows are copied."""
    return torch.from_numpy(images[rows])


def _to_device(
    dataset: ArrayDataset, index: np.ndarray, device: torch.device, chunk: int = 4096
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of `index` on `device`, moved in chunks so that the host never holds a second copy."""
    dtype = torch.float32 if dataset.as_they_are else torch.uint8
    images = torch.empty((len(index), *dataset.train_images.shape[1:]), dtype=dtype, device=device)
    for start in range(0, len(index), chunk):
        rows = index[start : start + chunk]
        images[start : start + len(rows)] = _take(dataset.train_images, rows).to(device)
    return images, torch.from_numpy(dataset.train_labels[index]).to(device)


def check_batch_size(batch_size: int) -> None:
    """Raises ConfigError: it is below 1."""
    if batch_size < 1:
        raise ConfigError(Fault("training.batch_size", "must be 1 or more", batch_size))
