"""``digits``: scikit-learn's 1,797 handwritten digits, real images that come with the package and need no network."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from raydistill.datasets.arrays import ArrayDataset, channel_statistics
from raydistill.datasets.config import DatasetConfig
from raydistill.datasets.preprocessing import Preprocessing
from raydistill.datasets.split import stratified_split
from raydistill.errors import ConfigError, Fault

TEST_FRACTION = 0.2
TEST_SEED = 0
"""The test split is a property of the dataset: it does not follow split_seed."""


def digits(config: DatasetConfig, wanted: Preprocessing | None = None) -> ArrayDataset:
    """8x8 grey images, upscaled (bilinear) to 3x32x32, ``config.image_size`` or what is wanted; classes "0" to "9".

    The dataset has no test split of its own: a fifth of each class, the same in every run, becomes it. ``auto``
    augmentation crops but does not flip: a mirrored digit is another character.
    """
    if config.data_dir is not None:
        rule = "'digits' is built in and reads no folder"
        raise ConfigError(
            Fault("dataset.data_dir", rule, config.data_dir, "leave it out, or name cifar10 or imagefolder")
        )
    images, labels, classes = _upscaled(*(config.image_size or (wanted and wanted.image_size) or (32, 32)))
    if config.channels == "grey":
        images = np.ascontiguousarray(images[..., :1])
    train, test = stratified_split(labels, TEST_FRACTION, TEST_SEED, classes)
    train_images, train_labels = images[train], labels[train]
    kept, held_out = stratified_split(train_labels, config.validation, config.split_seed, classes)
    mean, std = channel_statistics(train_images)
    augment = "crop" if config.augment == "auto" else config.augment
    return ArrayDataset(
        "digits", classes, mean, std, augment, train_images, train_labels, images[test], labels[test], kept, held_out
    )


@functools.lru_cache(maxsize=1)
def _upscaled(height: int, width: int) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """All images, (1797, height, width, 3) uint8, their labels, the names of the classes: to read, not to change."""
    table = np.loadtxt(_file(), delimiter=",")  # 64 pixels of 0 to 16 and the label
    grey = np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    resized = [Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR) for image in grey]
    images = np.repeat(np.stack([np.asarray(image) for image in resized])[..., None], 3, axis=3)
    labels = table[:, -1].astype(np.int64)
    for array in (images, labels):
        array.flags.writeable = False
    return images, labels, tuple(str(label) for label in np.unique(labels))


def _file() -> Path:
    """In the installed package, which is not imported for it: that takes each process of a sweep two seconds."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
