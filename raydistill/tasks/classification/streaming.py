"""Decoding in worker processes, for datasets that do not fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional

from raydistill.datasets import StreamedDataset
from raydistill.datasets.arrays import RESIZED_CROP, grey
from raydistill.datasets.decode import decode_image, decode_middle, decode_part
from raydistill.errors import DataError, Fault
from raydistill.tasks.classification.augment import PADDING


class _Files(Dataset[Any]):
    """Places 0 .. n - 1 of one epoch; each is one file, decoded, flipped and cropped as its row of `crops` says."""

    def __init__(
        self, dataset: StreamedDataset, files: np.ndarray, positions: np.ndarray, crops: np.ndarray | None
    ) -> None:
        self._dataset, self._files, self._positions, self._crops = dataset, files, positions, crops

    def __getitem__(self, place: int) -> np.ndarray | Fault | str:
        dataset = self._dataset
        path = dataset.path(self._files, int(self._positions[place]))
        try:
            pixels = self._decoded(path, place)
        except DataError as error:  # handed back as a value: the loader would wrap it in a traceback
            return error.faults[0]
        if dataset.channels == "grey":
            pixels = grey(pixels)
        if self._crops is None:
            return pixels
        if dataset.augment == RESIZED_CROP:
            return np.ascontiguousarray(pixels[:, ::-1]) if self._crops[place][2] else pixels
        dy, dx, flip = (int(value) for value in self._crops[place])
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        if flip:
            image = functional.horizontal_flip(image)
        height, width = dataset.image_size
        image = functional.crop(functional.pad(image, [PADDING] * 4), dy, dx, height, width)
        return image.permute(1, 2, 0).numpy()

    def _decoded(self, path: str, place: int) -> np.ndarray:
        dataset = self._dataset
        if self._crops is not None and dataset.augment == RESIZED_CROP:
            return decode_part(path, dataset.image_size, int(self._crops[place][0]), dataset.interpolation)
        if dataset.shorter_side is not None:
            return decode_middle(path, dataset.image_size, dataset.shorter_side, dataset.interpolation)
        return decode_image(path, dataset.image_size, dataset.resize)


def _collate(items: Sequence[np.ndarray | Fault | str]) -> torch.Tensor | Fault | str:
    faults = [item for item in items if not isinstance(item, np.ndarray)]
    return faults[0] if faults else torch.from_numpy(np.stack([item for item in items if isinstance(item, np.ndarray)]))


def stream(
    dataset: StreamedDataset,
    files: np.ndarray,
    labels: np.ndarray,
    positions: np.ndarray,
    bounds: Sequence[tuple[int, int]],
    device: torch.device,
    crops: np.ndarray | None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(uint8 (B, H, W, 3), labels) on `device`, in the order of `positions`, whatever the number of workers.

    crops: (n, 3) of dy, dx, flip for each position, None leaves the images as they are.

    Raises:
        DataError: a file cannot be decoded or has another size.
    """
    pin = device.type == "cuda"
    loader: DataLoader[object] = DataLoader(
        _Files(dataset, files, positions, crops),
        batch_sampler=[list(range(start, stop)) for start, stop in bounds],
        num_workers=min(dataset.workers, len(bounds)),
        collate_fn=_collate,
        pin_memory=pin,
    )
    for (start, stop), images in zip(bounds, loader, strict=True):
        if not isinstance(images, torch.Tensor):
            raise DataError(images)
        batch_labels = torch.from_numpy(labels[positions[start:stop]])
        yield images.to(device, non_blocking=pin), batch_labels.to(device)
