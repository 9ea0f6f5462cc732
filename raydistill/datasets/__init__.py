"""The menu of datasets. A user's own comes in as ``pkg.mod:factory``, called with the `DatasetConfig`; besides the
datasets here it may give torch's own (see `own_data`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydistill.datasets.arrays import AUGMENTATIONS, RESIZED_CROP, ArrayDataset
from raydistill.datasets.batched import BatchedDataset
from raydistill.datasets.config import DatasetConfig
from raydistill.datasets.fetch import DatasetUnavailable
from raydistill.datasets.preprocessing import Preprocessing
from raydistill.datasets.streamed import StreamedDataset
from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.resolve import resolve

__all__ = [
    "ArrayDataset",
    "BatchedDataset",
    "DatasetConfig",
    "DatasetUnavailable",
    "Preprocessing",
    "StreamedDataset",
    "check",
    "facts",
    "load",
    "names",
]

Dataset = ArrayDataset | StreamedDataset | BatchedDataset

TORCHVISION = {
    "cifar100": (100, 3, 32), "emnist": (47, 1, 28), "fashion_mnist": (10, 1, 28), "kmnist": (10, 1, 28),
    "mnist": (10, 1, 28), "stl10": (10, 3, 96), "svhn": (10, 3, 32), "usps": (10, 1, 16),
}  # fmt: skip
"""torchvision's: classes, channels and side of an image in pixels."""
KNOWN = {"cifar10": (10, 3, 32), "digits": (10, 1, 32), **TORCHVISION}
HUGGING_FACE = "hugging_face"
NAMES = ("cifar10", "digits", "imagefolder", HUGGING_FACE, *TORCHVISION)
CACHE_DIR = Path("~/.cache/raydistill")
SEARCH_DIRS = (Path("data"),)


def names() -> list[str]:
    """The built-in datasets, sorted."""
    return sorted(NAMES)


def check(config: DatasetConfig) -> None:
    """Everything that can be said of `config` without reading data.

    Raises:
        ConfigError: all faults together.
    """
    faults: list[Fault] = []

    def require(holds: bool, key: str, rule: str, value: object, way_out: str = "") -> None:
        if not holds:
            faults.append(Fault(f"dataset.{key}", rule, value, way_out))

    for key, name in (("name", config.name), ("fallback", config.fallback)):
        if name is not None or key == "name":
            try:
                _resolve(name, key)
            except ConfigError as error:
                faults.extend(fault for fault in error.faults if isinstance(fault, Fault))
    fraction = config.validation
    good_fraction = _is_number(fraction) and 0 < fraction < 1
    require(good_fraction, "validation", "must be a fraction of train, above 0 and below 1", fraction, "0.1 is usual")
    allowed = ("auto", *AUGMENTATIONS, RESIZED_CROP)
    own = isinstance(config.augment, str) and ":" in config.augment
    if own:
        from raydistill.datasets.augmentation import own_augmentation  # imports torch, which nothing else here needs

        try:
            own_augmentation(config.augment)
        except ConfigError as error:
            faults.extend(fault for fault in error.faults if isinstance(fault, Fault))
    require(
        own or config.augment in allowed,
        "augment",
        "unknown augmentation",
        config.augment,
        close_match(config.augment, allowed),
    )
    require(
        config.data_dir is None or isinstance(config.data_dir, (str, Path)),
        "data_dir",
        "must be a path",
        config.data_dir,
    )
    require(isinstance(config.download, bool), "download", "must be true or false", config.download)
    good_memory = config.in_memory == "auto" or isinstance(config.in_memory, bool)
    require(good_memory, "in_memory", "must be auto, true or false", config.in_memory)
    require(_is_count(config.split_seed), "split_seed", "must be a whole number, 0 or more", config.split_seed)
    require(_is_count(config.workers), "workers", "must be a whole number, 0 or more", config.workers)
    require(config.channels in ("rgb", "grey"), "channels", "must be rgb or grey", config.channels)
    size = config.image_size
    good_size = size is None or (
        isinstance(size, Sequence) and len(size) == 2 and all(_is_count(side) and side > 0 for side in size)
    )
    require(good_size, "image_size", "must be [height, width] in pixels", size, "for example [32, 32]")
    if config.args and config.name != HUGGING_FACE and ":" not in str(config.name):
        require(
            False, "args", f"'{config.name}' takes no args", dict(config.args), "they are for a factory of your own"
        )
    if faults:
        raise ConfigError(*faults)


def load(
    config: DatasetConfig,
    search_dirs: Sequence[Path] = SEARCH_DIRS,
    cache_dir: Path = CACHE_DIR,
    wanted: Preprocessing | None = None,
    made_for: tuple[int, int] | None = None,
) -> Dataset:
    """The dataset that `config` names, or its fallback where that one is neither on disk nor downloadable.

    search_dirs: where cifar10 is looked for when there is no data_dir, before cache_dir. cache_dir: where decoded
    images and downloads are kept. wanted: how the weights in use want their images: those of files are decoded in that
    size, those in memory are resized by the feed; ``config.image_size`` goes before. made_for: (height, width) that
    images of mixed sizes are brought to where neither says it.

    Raises:
        ConfigError: `config` cannot be meant. DataError: data is missing or damaged. StorageError: a full disk.
    """
    check(config)
    cache_dir = Path(cache_dir).expanduser()
    if config.image_size is not None:
        config = replace(config, image_size=(config.image_size[0], config.image_size[1]))  # YAML gives a list
    try:
        return _load(config, search_dirs, cache_dir, wanted, made_for)
    except DatasetUnavailable as error:
        # a folder that the user named is an error when it is wrong, never a reason to train on something else
        if config.fallback is None or config.data_dir is not None:
            raise
        dataset = _load(
            replace(config, name=config.fallback, fallback=None, args={}), search_dirs, cache_dir, wanted, made_for
        )
        warning = f"training on {dataset.name} INSTEAD OF {config.name}, which was not to be had: {error}"
        return replace(dataset, used_fallback=True, warning=warning)


def facts(config: DatasetConfig) -> tuple[int, tuple[int, int, int]] | None:
    """Classes and (C, H, W) of the images that `load` would give, where the name alone says them; else None."""
    if config.data_dir is not None and config.name not in TORCHVISION:
        return None
    found = {KNOWN.get(name) for name in (config.name, config.fallback or config.name)}
    shapes = {None if known is None else (known[0], known[2]) for known in found}
    only = shapes.pop()
    if only is None or shapes:
        return None
    classes, side = only
    height, width = config.image_size or (side, side)
    return classes, (1 if config.channels == "grey" else 3, int(height), int(width))


def _load(
    config: DatasetConfig,
    search_dirs: Sequence[Path],
    cache_dir: Path,
    wanted: Preprocessing | None,
    made_for: tuple[int, int] | None,
) -> Dataset:
    if wanted is not None:
        config = replace(config, channels="grey" if wanted.channels == "grey" else "rgb")
    # the families are imported here: torchvision and scikit-learn take seconds, and a user's own may need neither
    if config.name == "cifar10":
        from raydistill.datasets.cifar10 import cifar10

        return cifar10(config, search_dirs, cache_dir, wanted)
    if config.name == "imagefolder":
        from raydistill.datasets.imagefolder import imagefolder

        return imagefolder(config, cache_dir, wanted=wanted, made_for=made_for)
    if config.name == "digits":
        from raydistill.datasets.digits import digits

        return digits(config, wanted)
    if config.name in TORCHVISION:
        from raydistill.datasets.torchvision_sets import torchvision_set

        return torchvision_set(config, search_dirs, cache_dir)
    if config.name == HUGGING_FACE:
        from raydistill.datasets.hugging_face import hugging_face

        return hugging_face(config, cache_dir)
    dataset = _resolve(config.name, "name")(config)
    if isinstance(dataset, (ArrayDataset, StreamedDataset, BatchedDataset)):
        return dataset
    from raydistill.datasets.own_data import own_data

    return own_data(dataset, config)


def _resolve(name: object, key: str) -> Any:
    if name == "":
        way_out = f"name one of {', '.join(NAMES)}, or your own: pkg.mod:name"
        raise ConfigError(Fault(f"dataset.{key}", "is missing", ABSENT, way_out))
    found = resolve(name, dict.fromkeys(NAMES, _load), f"dataset.{key}", "dataset")
    if not callable(found):
        raise ConfigError(Fault(f"dataset.{key}", "a dataset must be a callable factory", name, "name a function"))
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
