"""torchvision's datasets by name that lie in memory whole: ``mnist``, ``svhn``, ``cifar100`` and the like.

torchvision's own classes read the publishers' files. Those that are pickles or Matlab's are compared with the md5 sums
in its list first, so that only the published bytes are ever loaded.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR100, EMNIST, KMNIST, MNIST, STL10, SVHN, USPS, FashionMNIST
from torchvision.transforms.v2 import functional

from raydistill.datasets.arrays import ArrayDataset, channel_statistics, grey
from raydistill.datasets.config import DatasetConfig
from raydistill.datasets.fetch import DatasetUnavailable, fetch
from raydistill.datasets.split import stratified_split
from raydistill.errors import DataError, Fault, StorageError

WHERE = "dataset.data_dir"
CHUNK = 4096

Split = tuple[np.ndarray, np.ndarray, tuple[str, ...]]
"""images uint8 (N, H, W, C), labels int64 (N,), names of classes or ()."""


@dataclass(frozen=True)
class _Kind:
    """read: (folder, whether train) to a split. folder: where torchvision keeps the files, below its root. first: a
    file that tells the folder. archives: (url, md5) of what is downloaded. flips: whether a mirrored image is of
    its class.
    """

    read: Callable[[Path, bool], Split]
    folder: str
    first: str
    archives: Callable[[], list[tuple[str, str]]]
    flips: bool = True


def torchvision_set(config: DatasetConfig, search_dirs: Sequence[Path], cache_dir: Path) -> ArrayDataset:
    """The one that ``config.name`` names, from ``config.data_dir`` or found in `search_dirs` or `cache_dir`, or
    downloaded there. data_dir: the files' folder, or one of those around it, as torchvision lays them out.

    Images of one channel are repeated for rgb networks; ``config.channels: grey`` gives them as they are.
    ``image_size`` resizes, bilinear and antialiased.

    Raises:
        DataError: data_dir is missing, incomplete or damaged.
        DatasetUnavailable: there is no data_dir, and the files are neither on disk nor downloadable.
    """
    name, kind = config.name, KINDS[config.name]
    folder = _found(kind, config, search_dirs, cache_dir)
    train, test = (_read(kind, folder, name, is_train) for is_train in (True, False))
    classes = train[2] or tuple(str(number) for number in range(int(train[1].max()) + 1))
    train_images, test_images = (_prepared(images, config) for images in (train[0], test[0]))
    kept, held_out = stratified_split(train[1], config.validation, config.split_seed, classes)
    mean, std = channel_statistics(train_images)
    usual = "crop_flip" if kind.flips else "crop"
    augment = usual if config.augment == "auto" else config.augment
    return ArrayDataset(name, classes, mean, std, augment, train_images, train[1], test_images, test[1], kept, held_out)


def _found(kind: _Kind, config: DatasetConfig, search_dirs: Sequence[Path], cache_dir: Path) -> Path:
    if config.data_dir is not None:
        root = Path(config.data_dir).expanduser().absolute()
        folder = _folder_in(kind, root)
        if folder is not None:
            return folder
        if not root.is_dir():
            raise DataError(Fault(WHERE, "the data folder does not exist", str(root), "check the path"))
        found = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        rule = f"'{root}' must hold {kind.folder}/{kind.first}, or be the folder that holds {kind.first}"
        raise DataError(Fault(WHERE, rule, found, "unpack the files that were downloaded, or check the path"))
    places = [Path(folder).expanduser().absolute() for folder in (*search_dirs, cache_dir)]
    for place in places:
        folder = _folder_in(kind, place)
        if folder is not None:
            return folder
    looked_in = ", ".join(map(str, places))
    if not config.download:
        rule = f"{config.name} is not on disk (looked in {looked_in}) and dataset.download is off"
        raise DatasetUnavailable(Fault("dataset.name", rule, way_out="--data-dir DIR"))
    try:
        return _download(kind, cache_dir)
    except DatasetUnavailable as error:
        rule = f"{config.name} is neither on disk (looked in {looked_in}) nor downloadable ({error})"
        raise DatasetUnavailable(Fault("dataset.name", rule, way_out="--data-dir DIR")) from error


def _folder_in(kind: _Kind, root: Path) -> Path | None:
    parts = Path(kind.folder).parts
    candidates = [root, *(root.joinpath(*parts[start:]) for start in range(len(parts)))]
    return next((folder for folder in candidates if (folder / kind.first).is_file()), None)


def _read(kind: _Kind, folder: Path, name: str, is_train: bool) -> Split:
    try:
        images, labels, classes = kind.read(folder, is_train)
    except Exception as error:  # a damaged file ends torchvision's readers in many ways
        said = str(error).replace(" You can use download=True to download it", "") or type(error).__name__
        rule = f"'{folder}' is incomplete or damaged as {name} ({said})"
        raise DataError(Fault(WHERE, rule, way_out="remove it and get the files again")) from error
    if len(images) != len(labels) or not len(labels):
        split = "train" if is_train else "test"
        rule = f"'{folder}' is damaged: {split} must have a label for each image"
        raise DataError(Fault(WHERE, rule, f"{len(images)} images, {len(labels)} labels"))
    return np.ascontiguousarray(images), np.asarray(labels, dtype=np.int64), classes


def _prepared(images: np.ndarray, config: DatasetConfig) -> np.ndarray:
    """In the size and with the channels that the section asks for."""
    if config.channels == "grey" and images.shape[3] == 3:
        images = grey(images)
    elif config.channels == "rgb" and images.shape[3] == 1:
        images = np.repeat(images, 3, axis=3)
    size = config.image_size
    if size is None or images.shape[1:3] == tuple(size):
        return images
    resized: np.ndarray = np.empty((len(images), *size, images.shape[3]), dtype=np.uint8)
    for start in range(0, len(images), CHUNK):
        part = torch.from_numpy(images[start : start + CHUNK]).permute(0, 3, 1, 2)
        resized[start : start + CHUNK] = functional.resize(part, list(size), antialias=True).permute(0, 2, 3, 1).numpy()
    return resized


def _of_mnist(kind: type[MNIST], **arguments: str) -> Callable[[Path, bool], Split]:
    def read(folder: Path, is_train: bool) -> Split:
        class Files(kind):  # type: ignore[valid-type,misc]
            raw_folder = str(folder)

            def _check_legacy_exist(self) -> bool:
                return False

        found = Files(str(folder), train=is_train, **arguments)
        return found.data.numpy()[..., None], found.targets.numpy(), tuple(found.classes)

    return read


def _cifar100(folder: Path, is_train: bool) -> Split:
    class Files(CIFAR100):
        base_folder = folder.name

    found = Files(folder.parent, train=is_train)
    return found.data, np.asarray(found.targets), tuple(found.classes)


def _svhn(folder: Path, is_train: bool) -> Split:
    found = SVHN(folder, split="train" if is_train else "test")
    return found.data.transpose(0, 2, 3, 1), found.labels, ()


def _stl10(folder: Path, is_train: bool) -> Split:
    class Files(STL10):
        base_folder = folder.name
        train_list = STL10.train_list[:2]  # the images without labels are of no use here

    found = Files(str(folder.parent), split="train" if is_train else "test")
    return found.data.transpose(0, 2, 3, 1), found.labels.astype(np.int64), tuple(getattr(found, "classes", ()))


def _usps(folder: Path, is_train: bool) -> Split:
    found = USPS(folder, train=is_train)
    return np.asarray(found.data)[..., None], np.asarray(found.targets), ()


def _mnist_like(kind: type[MNIST], flips: bool = False) -> _Kind:
    def archives() -> list[tuple[str, str]]:
        return [(f"{kind.mirrors[0]}{file}", md5) for file, md5 in kind.resources]

    return _Kind(_of_mnist(kind), f"{kind.__name__}/raw", "train-images-idx3-ubyte", archives, flips)


KINDS = {
    "mnist": _mnist_like(MNIST),
    "fashion_mnist": _mnist_like(FashionMNIST, flips=True),
    "kmnist": _mnist_like(KMNIST),
    "emnist": _Kind(
        _of_mnist(EMNIST, split="balanced"), "EMNIST/raw", "emnist-balanced-train-images-idx3-ubyte",
        lambda: [(EMNIST.url, EMNIST.md5)], flips=False,
    ),
    "usps": _Kind(
        _usps, "USPS", "usps.bz2", lambda: [(url, md5) for url, _, md5 in USPS.split_list.values()], flips=False
    ),
    "svhn": _Kind(
        _svhn, "SVHN", "train_32x32.mat",
        lambda: [(SVHN.split_list[split][0], SVHN.split_list[split][2]) for split in ("train", "test")], flips=False,
    ),
    "cifar100": _Kind(_cifar100, CIFAR100.base_folder, "train", lambda: [(CIFAR100.url, CIFAR100.tgz_md5)]),
    "stl10": _Kind(_stl10, STL10.base_folder, "train_X.bin", lambda: [(STL10.url, STL10.tgz_md5)]),
}  # fmt: skip


def _download(kind: _Kind, cache_dir: Path) -> Path:
    """Fetch and unpack; the folder appears under its name only when it is whole."""
    target = cache_dir / kind.folder
    unpacked = None
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        unpacked = Path(tempfile.mkdtemp(prefix=".unpack-", dir=cache_dir))
        for url, md5 in kind.archives():
            archive = unpacked / url.rpartition("/")[2]
            fetch(url, archive, md5)
            _unpack(archive)
        whole = next(file.parent for file in sorted(unpacked.rglob(kind.first)))
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another process was first
            os.rename(whole, target)
    except StopIteration:
        raise DatasetUnavailable(Fault(str(kind.archives()[0][0]), f"holds no {kind.first}")) from None
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise StorageError(Fault(str(cache_dir), f"cannot unpack {kind.folder} ({error})")) from error
    finally:
        if unpacked is not None:
            shutil.rmtree(unpacked, ignore_errors=True)
    return target


def _unpack(archive: Path) -> None:
    """What is in it lies beside it then; bz2 files stay, as torchvision reads them."""
    folder = archive.parent
    if archive.name.endswith(".tar.gz"):
        with tarfile.open(archive, "r:gz") as opened:
            opened.extractall(folder, filter="data")
    elif archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as files:
            files.extractall(folder)  # nosec B202 - zipfile keeps what is in it inside the folder
        for inner in sorted(folder.rglob("*balanced*.gz")):
            _unpack(inner)
    elif archive.suffix == ".gz":
        with gzip.open(archive, "rb") as source, open(archive.with_suffix(""), "wb") as plain:
            shutil.copyfileobj(source, plain)
    else:
        return
    archive.unlink()
