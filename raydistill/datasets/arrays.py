"""A dataset that is decoded in memory: uint8 arrays that travel through Ray's object store without a copy.

Images are (N, H, W, 3): one image is one contiguous row of bytes to gather, a crop is contiguous in each of its
rows, and the batch is channels_last as it stands.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from raydistill.datasets.preprocessing import Preprocessing
from raydistill.errors import DataError, Fault

AUGMENTATIONS = ("none", "crop", "crop_flip")
RESIZED_CROP = "resized_crop"
"""What image files bear besides: a crop of another part and size each time, taken before an image is resized."""

GREY = (19595, 38470, 7471)
"""Of red, green and blue in 65,536 of grey, as Pillow has it."""


@dataclass(frozen=True)
class ArrayDataset:
    """All images of one dataset; arrays may be read-only and nothing writes to them.

    mean, std: per channel, of the train pixels scaled to [0, 1]. train_images, test_images: uint8
    (N, H, W, 3), or (N, H, W, 1) of grey ones; float32 ones are used as they are, whatever mean and std say.
    train_labels, test_labels: int64 (N,); of images with several labels uint8 (N, classes) of 0 and 1.
    train_index, validation_index: int64 positions in train_images, disjoint.
    used_fallback: this is not the dataset that was asked for. warning: what the user has to be told, or "".

    Raises:
        DataError: arrays of another type or shape, labels out of range, or no images.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    train_index: np.ndarray
    validation_index: np.ndarray
    used_fallback: bool = False
    warning: str = ""

    def __post_init__(self) -> None:
        where = f"dataset '{self.name}'"
        if self.augment not in AUGMENTATIONS and ":" not in self.augment:
            raise DataError(Fault(where, f"augment must be one of {', '.join(AUGMENTATIONS)}", self.augment))
        for split, images, labels in (
            ("train", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            if images.dtype not in (np.uint8, np.float32) or images.ndim != 4 or images.shape[3] not in (1, 3):
                found = f"{images.dtype} {images.shape}"
                rule = f"{split}_images must be uint8 (or float32) of shape (N, H, W, 3) or (N, H, W, 1)"
                raise DataError(Fault(where, rule, found))
            if not images.flags.c_contiguous:
                raise DataError(Fault(where, f"{split}_images must be contiguous", way_out="np.ascontiguousarray"))
            if labels.ndim == 2:
                shape = (len(images), len(self.classes))
                if labels.dtype != np.uint8 or labels.shape != shape or not len(labels) or labels.max() > 1:
                    rule = f"{split}_labels must be uint8 of 0 and 1, (images, classes) = {shape}"
                    raise DataError(Fault(where, rule, f"{labels.dtype} {labels.shape}"))
                continue
            if labels.dtype != np.int64 or labels.shape != images.shape[:1] or not len(labels):
                found = f"{labels.dtype} {labels.shape} for {len(images)} images"
                raise DataError(Fault(where, f"{split}_labels must be int64, one an image, one at least", found))
            if labels.min() < 0 or labels.max() >= len(self.classes):
                found = f"{labels.min()} to {labels.max()}"
                raise DataError(Fault(where, f"{split}_labels must be in 0 to {len(self.classes) - 1}", found))
        kinds = [(images.shape[1:], images.dtype.name) for images in (self.train_images, self.test_images)]
        if kinds[0] != kinds[1]:
            found = " and ".join(f"{shape} {dtype}" for shape, dtype in kinds)
            raise DataError(Fault(where, "train and test images must be of one size and type", found))
        if self.train_labels.ndim != self.test_labels.ndim:
            raise DataError(Fault(where, "train and test must both have one label an image, or both several"))

        for key, index in (("train_index", self.train_index), ("validation_index", self.validation_index)):
            if not len(index) or index.min() < 0 or index.max() >= len(self.train_images):
                rule = f"{key} must hold positions in train_images, one at least"
                raise DataError(Fault(where, rule, f"{len(index)} positions for {len(self.train_images)} images"))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, height, width, channels = self.train_images.shape
        return channels, height, width

    @property
    def preprocessing(self) -> Preprocessing:
        """The dataset's own, that networks which are trained on it from the beginning have."""
        channels, height, width = self.image_shape
        mean, std = as_they_are(channels) if self.as_they_are else (self.mean, self.std)
        return Preprocessing(mean, std, (height, width), channels="grey" if channels == 1 else "rgb")

    @property
    def as_they_are(self) -> bool:
        """Whether its images are floats, which nobody normalises or resizes."""
        return bool(self.train_images.dtype != np.uint8)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.train_labels.ndim == 2

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(value.nbytes for f in fields(self) if isinstance(value := getattr(self, f.name), np.ndarray))


def as_they_are(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) that leave an image's values as they are when it is normalised: (value / 255 - 0) / (1 / 255)."""
    return (0.0,) * channels, (1 / 255,) * channels


def channel_statistics(images: np.ndarray, chunk: int = 1024) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) per channel of uint8 (N, H, W, C), scaled to [0, 1]; sums are of integers, so exact."""
    channels = images.shape[3]
    pixels = images.shape[1] * images.shape[2] * channels
    total = np.zeros(pixels, dtype=np.uint64)
    squares = np.zeros(pixels, dtype=np.uint64)
    for start in range(0, len(images), chunk):
        part: np.ndarray = images[start : start + chunk].reshape(-1, pixels).astype(np.uint32)
        total += part.sum(axis=0, dtype=np.uint64)
        squares += np.square(part).sum(axis=0, dtype=np.uint64)
    count = images.size // channels
    mean = total.reshape(-1, channels).sum(axis=0) / count
    variance = np.maximum(squares.reshape(-1, channels).sum(axis=0) / count - np.square(mean), 0.0)
    # a channel that is constant has no spread to divide by; one grey level keeps it finite
    std = np.maximum(np.sqrt(variance), 1.0)
    return tuple(float(value) / 255 for value in mean), tuple(float(value) / 255 for value in std)


def grey(images: np.ndarray, chunk: int = 1024) -> np.ndarray:
    """uint8 (..., 1) of uint8 (..., 3), in whole numbers as Pillow has it."""
    result: np.ndarray = np.empty((*images.shape[:-1], 1), dtype=np.uint8)
    for start in range(0, len(images), chunk):
        weighted: np.ndarray = images[start : start + chunk].astype(np.uint32) * np.array(GREY, dtype=np.uint32)
        result[start : start + chunk, ..., 0] = (weighted.sum(axis=-1, dtype=np.uint32) + 0x8000) >> 16
    return result
