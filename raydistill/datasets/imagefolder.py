"""``imagefolder``: a tree of train/CLASS/FILE and test/CLASS/FILE (or val/), images of any size.

Where the decoded images fit in memory they are decoded once and kept as arrays in the cache folder, so that the next
start maps them instead of decoding; otherwise file names are kept and workers decode (`StreamedDataset`).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from raydistill.datasets.arrays import ArrayDataset, channel_statistics
from raydistill.datasets.config import DatasetConfig
from raydistill.datasets.decode import decode_files, decode_image
from raydistill.datasets.decoded_cache import read_cache, write_cache
from raydistill.datasets.memory import available_memory
from raydistill.datasets.split import seeded_permutation, stratified_split
from raydistill.datasets.streamed import StreamedDataset
from raydistill.errors import ConfigError, DataError, Fault, StorageError

WHERE = "dataset.data_dir"
SAMPLE = 4096
"""Images that mean and std of a streamed dataset are taken from."""


@dataclass(frozen=True)
class _Listing:
    """Files of one split: paths relative to the root, in order of class and name."""

    files: list[str]
    labels: np.ndarray


def imagefolder(config: DatasetConfig, cache_dir: Path, name: str = "imagefolder") -> ArrayDataset | StreamedDataset:
    """Load the tree under ``config.data_dir``. The test split is test/, or val/ where there is no test/.

    Raises:
        ConfigError: no data_dir. DataError: folders, classes or images are missing, or a file cannot be decoded.
    """
    if config.data_dir is None:
        raise ConfigError(
            Fault(WHERE, f"'{name}' needs a folder with train/ and test/ (or val/)", None, "--data-dir DIR")
        )
    root = Path(config.data_dir).expanduser().absolute()
    train_dir, test_dir = _split_folders(root)
    classes = _class_names(train_dir)
    train = _list_files(root, train_dir, classes)
    test = _list_files(root, test_dir, classes)
    kept, held_out = stratified_split(train.labels, config.validation, config.split_seed, classes)
    augment = "crop_flip" if config.augment == "auto" else config.augment
    resize = config.image_size is not None
    size = config.image_size or decode_image(str(root / train.files[0]), None, resize=False).shape[:2]

    if config.in_memory == "auto":
        needed = (len(train.files) + len(test.files)) * size[0] * size[1] * 3
        in_memory = needed * 4 <= available_memory()
    else:
        in_memory = bool(config.in_memory)
    if not in_memory:
        positions = np.sort(seeded_permutation(len(train.files), 0)[:SAMPLE])
        mean, std = channel_statistics(decode_files([str(root / train.files[i]) for i in positions], size, resize))
        return StreamedDataset(
            name, classes, mean, std, augment, str(root),
            np.array([os.fsencode(file) for file in train.files]), train.labels,
            np.array([os.fsencode(file) for file in test.files]), test.labels,
            kept, held_out, size, resize, config.workers,
        )  # fmt: skip

    train_images, test_images, mean, std, warning = _decoded(root, train, test, size, resize, cache_dir)
    return ArrayDataset(
        name, classes, mean, std, augment, train_images, train.labels, test_images, test.labels, kept, held_out,
        warning=warning,
    )  # fmt: skip


def _split_folders(root: Path) -> tuple[Path, Path]:
    if not root.is_dir():
        raise DataError(Fault(WHERE, "the data folder does not exist", str(root), "check the path"))
    train = root / "train"
    test = next((root / split for split in ("test", "val") if (root / split).is_dir()), None)
    if not train.is_dir() or test is None:
        found = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        raise DataError(
            Fault(WHERE, f"'{root}' must hold train/ and test/ (or val/)", found, "one folder a class in each")
        )
    return train, test


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(
            Fault(WHERE, f"'{folder}' must hold one folder a class", "no folder", "put the images in train/CLASS/")
        )
    return tuple(names)


def _list_files(root: Path, folder: Path, classes: tuple[str, ...]) -> _Listing:
    unknown = [name for name in _class_names(folder) if name not in classes]
    if unknown:
        raise DataError(
            Fault(WHERE, f"every class of '{folder}' must be in train/ too", unknown[0], "rename or remove it")
        )
    numbers = {name: number for number, name in enumerate(classes)}
    prefix = os.path.join(str(root), "")  # every path starts with it; relpath would take longer than the walk
    samples = make_dataset(str(folder), numbers, IMG_EXTENSIONS, allow_empty=True)
    labels = np.array([label for _, label in samples], dtype=np.int64)
    counts = np.bincount(labels, minlength=len(classes))
    empty = [name for name in classes if not counts[numbers[name]]]
    if empty:
        rule = f"class '{empty[0]}' has no image in '{folder}'"
        raise DataError(Fault(WHERE, rule, way_out=f"images end in {', '.join(IMG_EXTENSIONS)}"))
    return _Listing([path.removeprefix(prefix) for path, _ in samples], labels)


def _decoded(
    root: Path, train: _Listing, test: _Listing, size: tuple[int, int], resize: bool, cache_dir: Path
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...], tuple[float, ...], str]:
    """(train images, test images, mean, std, warning), from the cache if it is of these very files."""
    folder = cache_dir / "decoded" / _listing_key(root, train.files + test.files, size)
    cached = read_cache(folder)
    if cached is not None:
        train_images, test_images, facts = cached
        return train_images, test_images, tuple(facts["mean"]), tuple(facts["std"]), ""
    images = decode_files([os.path.join(root, file) for file in train.files + test.files], size, resize)
    train_images, test_images = images[: len(train.files)], images[len(train.files) :]
    mean, std = channel_statistics(train_images)
    try:
        write_cache(folder, train_images, test_images, {"mean": mean, "std": std, "root": str(root)})
    except StorageError as error:  # training needs no cache, only the next start would have been faster
        return train_images, test_images, mean, std, str(error)
    return *(read_cache(folder) or (train_images, test_images))[:2], mean, std, ""


def _listing_key(root: Path, files: list[str], size: tuple[int, int]) -> str:
    """A hash that changes with any file's name, size or time, and with the image size."""
    digest = hashlib.sha256(f"1 {root} {size[0]}x{size[1]}".encode(errors="surrogateescape"))
    prefix = os.path.join(str(root), "")
    for file in files:
        facts = os.stat(prefix + file)
        digest.update(f"\n{file} {facts.st_size} {facts.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:24]
