"""A dataset that does not fit in memory: file names instead of pixels, the same public face as `ArrayDataset`."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from raydistill.datasets.preprocessing import Preprocessing
from raydistill.errors import DataError, Fault


@dataclass(frozen=True)
class StreamedDataset:
    """Image files that worker processes decode as they are needed.

    root: the folder that file names are relative to. train_files, test_files: bytes arrays (dtype ``S``) of relative
    paths. image_size: (height, width); a file of another size is resized if `resize`, else an error. workers: processes
    that decode; 0 decodes in the training process. shorter_side: images are resized to that, and the middle of
    image_size is taken; interpolation: how. channels: ``rgb`` or ``grey``. All else as in `ArrayDataset`; mean and std
    are of a seeded sample.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: str
    root: str
    train_files: np.ndarray
    train_labels: np.ndarray
    test_files: np.ndarray
    test_labels: np.ndarray
    train_index: np.ndarray
    validation_index: np.ndarray
    image_size: tuple[int, int]
    resize: bool = False
    workers: int = 2
    used_fallback: bool = False
    warning: str = ""
    shorter_side: int | None = None
    interpolation: str = "bilinear"
    channels: str = "rgb"

    def __post_init__(self) -> None:
        for split, files, labels in (
            ("train", self.train_files, self.train_labels),
            ("test", self.test_files, self.test_labels),
        ):
            if not len(files) or len(files) != len(labels):
                rule = f"{split} needs one label a file, and one file at least"
                raise DataError(Fault(f"dataset '{self.name}'", rule, f"{len(files)} files, {len(labels)} labels"))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return len(self.mean), *self.image_size

    @property
    def preprocessing(self) -> Preprocessing:
        """The dataset's own, that networks which are trained on it from the beginning have."""
        return Preprocessing(self.mean, self.std, self.image_size, self.shorter_side, self.interpolation, self.channels)

    @property
    def as_they_are(self) -> bool:
        """Never: its images are uint8, which are normalised; see `ArrayDataset`."""
        return False

    @property
    def multi_label(self) -> bool:
        """Never: a file lies in the folder of one class."""
        return False

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def nbytes(self) -> int:
        """Bytes that the decoded images would take."""
        height, width = self.image_size
        return (len(self.train_files) + len(self.test_files)) * height * width * 3

    def path(self, split_files: np.ndarray, position: int) -> str:
        """Full path of one file of `train_files` or `test_files`."""
        return os.path.join(self.root, os.fsdecode(bytes(split_files[position])))
