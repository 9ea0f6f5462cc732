"""``cifar10``: Krizhevsky's 50,000 train and 10,000 test images, from torchvision's files or an image-folder tree.

The files are pickles. torchvision's class compares each with the md5 sum in its own list before it is unpickled, so
that only the published bytes are ever loaded.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10

from raydistill.datasets.arrays import ArrayDataset, channel_statistics, grey
from raydistill.datasets.config import DatasetConfig
from raydistill.datasets.fetch import DatasetUnavailable, fetch
from raydistill.datasets.imagefolder import imagefolder
from raydistill.datasets.preprocessing import Preprocessing
from raydistill.datasets.split import stratified_split
from raydistill.datasets.streamed import StreamedDataset
from raydistill.errors import ConfigError, DataError, Fault, StorageError

WHERE = "dataset.data_dir"
FIRST_FILE = "data_batch_1"


def cifar10(
    config: DatasetConfig, search_dirs: Sequence[Path], cache_dir: Path, wanted: Preprocessing | None = None
) -> ArrayDataset | StreamedDataset:
    """Load CIFAR-10 from ``config.data_dir``, or find it in `search_dirs` or `cache_dir`, or download it there.

    data_dir may be a cifar-10-batches-py folder, its parent, or a tree for `imagefolder`. The batches hold decoded
    pixels, so they are in memory whatever ``in_memory`` says.

    Raises:
        DataError: data_dir is missing, incomplete or damaged.
        DatasetUnavailable: there is no data_dir, and the dataset is neither on disk nor downloadable.
    """
    if config.data_dir is not None:
        root = Path(config.data_dir).expanduser()
        batches = _batches_folder(root)
        if batches is not None:
            return _from_batches(batches, config)
        if not root.is_dir():
            raise DataError(Fault(WHERE, "the data folder does not exist", str(root), "check the path"))
        if not (root / "train").is_dir():
            rule = f"'{root}' must be or hold {CIFAR10.base_folder}, or hold train/ and test/ with a folder a class"
            found = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
            raise DataError(Fault(WHERE, rule, found, "check the path"))
        return imagefolder(config, cache_dir, "cifar10", wanted, (32, 32))
    places = (*search_dirs, cache_dir)
    for folder in places:
        batches = _batches_folder(folder.expanduser())
        if batches is not None:
            return _from_batches(batches, config)
    looked_in = ", ".join(str(folder) for folder in places)
    if not config.download:
        rule = f"cifar10 is not on disk (looked in {looked_in}) and dataset.download is off"
        raise DatasetUnavailable(Fault("dataset.name", rule, way_out="--data-dir DIR, or --dataset digits"))
    try:
        return _from_batches(_download(cache_dir), config)
    except DatasetUnavailable as error:
        rule = f"cifar10 is neither on disk (looked in {looked_in}) nor downloadable ({error})"
        raise DatasetUnavailable(Fault("dataset.name", rule, way_out="--data-dir DIR, or --dataset digits")) from error


def _batches_folder(folder: Path) -> Path | None:
    for candidate in (folder, folder / CIFAR10.base_folder):
        if (candidate / FIRST_FILE).is_file():
            return candidate
    return None


def _from_batches(folder: Path, config: DatasetConfig) -> ArrayDataset:
    class Batches(CIFAR10):
        base_folder = folder.name

    if config.image_size not in (None, (32, 32)):
        rule = "cifar10's batches hold images of 32x32"
        raise ConfigError(
            Fault("dataset.image_size", rule, config.image_size, "leave it out, or give an image-folder tree")
        )
    try:
        train, test = (Batches(folder.absolute().parent, train=is_train) for is_train in (True, False))
    except (RuntimeError, OSError) as error:  # torchvision's word for a file that is missing or has another md5
        rule = f"'{folder}' is incomplete or damaged ({error})".replace(" You can use download=True to download it", "")
        raise DataError(Fault(WHERE, rule, way_out="remove the folder and get the archive again")) from error
    labels = np.asarray(train.targets, dtype=np.int64)
    classes = tuple(train.classes)
    kept, held_out = stratified_split(labels, config.validation, config.split_seed, classes)
    train_images, test_images = np.ascontiguousarray(train.data), np.ascontiguousarray(test.data)
    if config.channels == "grey":
        train_images, test_images = grey(train_images), grey(test_images)
    mean, std = channel_statistics(train_images)
    augment = "crop_flip" if config.augment == "auto" else config.augment
    return ArrayDataset(
        "cifar10", classes, mean, std, augment, train_images, labels,
        test_images, np.asarray(test.targets, dtype=np.int64), kept, held_out,
    )  # fmt: skip


def _download(cache_dir: Path) -> Path:
    """Fetch and unpack the archive; the folder appears under its name only when it is whole."""
    archive = cache_dir / CIFAR10.filename
    fetch(CIFAR10.url, archive, CIFAR10.tgz_md5)
    target = cache_dir / CIFAR10.base_folder
    unpacked = None
    try:
        unpacked = Path(tempfile.mkdtemp(prefix=".unpack-", dir=cache_dir))
        with tarfile.open(archive, "r:gz") as opened:
            opened.extractall(unpacked, filter="data")
        with contextlib.suppress(FileExistsError):  # another process was first; its files are checked like ours
            os.rename(unpacked / CIFAR10.base_folder, target)
        archive.unlink(missing_ok=True)
    except (OSError, tarfile.TarError) as error:
        raise StorageError(Fault(str(cache_dir), f"cannot unpack {archive.name} ({error})")) from error
    finally:
        if unpacked is not None:
            shutil.rmtree(unpacked, ignore_errors=True)
    return target
