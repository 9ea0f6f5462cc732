"""``imagefolder``: a tree of train/CLASS/FILE and test/CLASS/FILE (or val/), images of any size.

Where the decoded images fit in memory they are decoded once and kept as arrays in the cache folder, so that the next
start maps them instead of decoding; otherwise file names are kept and workers decode (`StreamedDataset`).
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raydistill.datasets.arrays import RESIZED_CROP, ArrayDataset, channel_statistics, grey
from raydistill.datasets.config import DatasetConfig
from raydistill.datasets.decode import ENDINGS, decode_files, size_of
from raydistill.datasets.decoded_cache import read_cache, write_cache
from raydistill.datasets.memory import available_memory
from raydistill.datasets.preprocessing import Preprocessing, imagenet_geometry
from raydistill.datasets.split import seeded_permutation, stratified_split
from raydistill.datasets.streamed import StreamedDataset
from raydistill.errors import ConfigError, DataError, Fault, StorageError

WHERE = "dataset.data_dir"
SIZES_LOOKED_AT = 1024
"""Train images whose headers tell whether all are of one size."""

SAMPLE = 4096
"""Images that mean and std of a streamed dataset are taken from."""


@dataclass(frozen=True)
class _Listing:
    """Files of one split: paths relative to the root, in order of class and name. others: endings of those left out."""

    files: list[str]
    labels: np.ndarray
    others: Counter[str]


def imagefolder(
    config: DatasetConfig,
    cache_dir: Path,
    name: str = "imagefolder",
    wanted: Preprocessing | None = None,
    made_for: tuple[int, int] | None = None,
) -> ArrayDataset | StreamedDataset:
    """Load the tree under ``config.data_dir``. The test split is test/, or val/ where there is no test/.

    wanted: the size and the crop that the weights in use want; ``config.image_size`` goes before. made_for: (height,
    width) that images of mixed sizes are brought to where nobody says it.

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
    classes = _shown(classes)
    left_out = _left_out(train, test)
    kept, held_out = stratified_split(train.labels, config.validation, config.split_seed, classes)
    size, resize, shorter, resized = _geometry(config, root, train, wanted, made_for)
    notes = "; ".join(filter(None, (left_out, resized)))
    usual = "crop_flip" if shorter is None else RESIZED_CROP
    augment = usual if config.augment == "auto" else config.augment
    one_channel = config.channels == "grey"
    interpolation = "bilinear" if wanted is None or shorter is None else wanted.interpolation

    if shorter is not None or augment == RESIZED_CROP:
        in_memory = False  # each epoch sees other parts of the files
        if config.in_memory is True:
            rule = "images of mixed sizes, and random parts of them, are decoded anew in each epoch"
            raise ConfigError(Fault("dataset.in_memory", rule, True, "leave it out, or set dataset.image_size"))
    elif config.in_memory == "auto":
        needed = (len(train.files) + len(test.files)) * size[0] * size[1] * 3
        in_memory = needed * 4 <= available_memory()
    else:
        in_memory = bool(config.in_memory)
    if not in_memory:
        positions = np.sort(seeded_permutation(len(train.files), 0)[:SAMPLE])
        sample = [str(root / train.files[i]) for i in positions]
        pixels = decode_files(sample, size, resize, shorter, interpolation)
        mean, std = channel_statistics(grey(pixels) if one_channel else pixels)
        return StreamedDataset(
            name, classes, mean, std, augment, str(root),
            np.array([os.fsencode(file) for file in train.files]), train.labels,
            np.array([os.fsencode(file) for file in test.files]), test.labels,
            kept, held_out, size, resize, config.workers, warning=notes,
            shorter_side=shorter, interpolation=interpolation, channels=config.channels,
        )  # fmt: skip

    train_images, test_images, mean, std, warning = _decoded(root, train, test, size, resize, cache_dir)
    if one_channel:
        train_images, test_images = grey(train_images), grey(test_images)
        mean, std = channel_statistics(train_images)
    return ArrayDataset(
        name, classes, mean, std, augment, train_images, train.labels, test_images, test.labels, kept, held_out,
        warning="; ".join(filter(None, (notes, warning))),
    )  # fmt: skip


def _geometry(
    config: DatasetConfig,
    root: Path,
    train: _Listing,
    wanted: Preprocessing | None,
    made_for: tuple[int, int] | None,
) -> tuple[tuple[int, int], bool, int | None, str]:
    """(size, whether to resize to it, the shorter side before the middle is taken or None, what the user is told)."""
    random_parts = config.augment == RESIZED_CROP
    if config.image_size is not None and (wanted is None or wanted.image_size != config.image_size):
        return config.image_size, True, imagenet_geometry(config.image_size) if random_parts else None, ""
    first = size_of(str(root / train.files[0]))
    if wanted is not None:
        other = first != wanted.image_size
        told = f"{_cut(wanted.image_size, wanted.resize)}, as the weights want them" if other else ""
        return wanted.image_size, other, wanted.resize, told
    positions = seeded_permutation(len(train.files), 0)[:SIZES_LOOKED_AT]
    if not random_parts and all(size_of(str(root / train.files[i])) == first for i in positions):
        return first, False, None, ""
    size = made_for or (224, 224)
    shorter = imagenet_geometry(size)
    told = f"images are of several sizes: {_cut(size, shorter)}; dataset.image_size (--image-size) would resize all"
    return size, True, shorter, "" if random_parts else told


def _cut(size: tuple[int, int], shorter: int | None) -> str:
    shape = "x".join(map(str, size))
    if shorter is None:
        return f"they are resized to {shape}"
    return f"their shorter side is resized to {shorter} and the middle {shape} taken, to train random parts"


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
    """The names of its folders, sorted as bytes are; see `_shown`."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise DataError(
            Fault(WHERE, f"'{folder}' must hold one folder a class", "no folder", "put the images in train/CLASS/")
        )
    return tuple(names)


def _shown(names: tuple[str, ...]) -> tuple[str, ...]:
    """Class names as text that can be printed and saved, also of folders whose names are no UTF-8."""
    return tuple(os.fsencode(name).decode("utf-8", "backslashreplace") for name in names)


def _list_files(root: Path, folder: Path, classes: tuple[str, ...]) -> _Listing:
    unknown = [name for name in _class_names(folder) if name not in classes]
    if unknown:
        raise DataError(
            Fault(WHERE, f"every class of '{folder}' must be in train/ too", unknown[0], "rename or remove it")
        )
    prefix = os.path.join(str(root), "")  # every path starts with it; relpath would take longer than the walk
    files: list[str] = []
    counts = []
    others: Counter[str] = Counter()
    seen = {_identity(folder): str(folder)}
    for name in classes:
        top = os.path.join(str(folder), name)
        found = _images_below(top, seen, others) if os.path.isdir(top) else []
        if not found:
            rule = f"class '{name}' has no image in '{folder}'"
            raise DataError(Fault(WHERE, rule, way_out=f"images end in {', '.join(ENDINGS)}"))
        counts.append(len(found))
        files += [path.removeprefix(prefix) for path in found]
    labels: np.ndarray = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return _Listing(files, labels, others)


def _images_below(top: str, seen: dict[tuple[int, int], str], others: Counter[str]) -> list[str]:
    """The images of one class, sorted folder by folder; links are followed, hidden files and folders are left out.

    seen: every folder so far, by device and inode, added to. others: endings of what is no image, added to.

    Raises:
        DataError: a folder is met a second time, by a link: its images would count twice, or as two classes.
    """
    found: list[tuple[str, list[str]]] = []
    for folder, folders, names in os.walk(top, followlinks=True, onerror=_refuse):
        before = seen.setdefault(_identity(folder), folder)
        if before != folder:
            rule = f"is the same folder as {before}, so its images would count twice"
            raise DataError(Fault(folder, rule, way_out="remove the link"))
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = [name for name in names if not name.startswith(".")]
        found.append((folder, sorted(name for name in shown if name.lower().endswith(ENDINGS))))
        others.update(
            os.path.splitext(name)[1].lower() or "no ending" for name in shown if not name.lower().endswith(ENDINGS)
        )
    return [os.path.join(folder, name) for folder, names in sorted(found) for name in names]


def _identity(folder: str | Path) -> tuple[int, int]:
    facts = os.stat(folder)
    return facts.st_dev, facts.st_ino


def _refuse(error: OSError) -> None:
    raise DataError(Fault(str(error.filename), f"cannot be read ({error.strerror or error})")) from error


def _left_out(train: _Listing, test: _Listing) -> str:
    """What the user has to be told of files that do not count, or ""."""
    others = train.others + test.others
    if not others:
        return ""
    kinds = ", ".join(f"{count} {ending}" for ending, count in others.most_common(5))
    return f"{others.total():,} files of the tree are left out, their names do not end as images' do ({kinds})"


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
    digest = hashlib.sha256(f"2 {root} {size[0]}x{size[1]}".encode(errors="surrogateescape"))
    prefix = os.path.join(str(root), "")
    for file in files:
        try:
            facts = os.stat(prefix + file)
        except OSError as error:  # such as a link that leads nowhere
            _refuse(error)
        digest.update(f"\n{file} {facts.st_size} {facts.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:24]
