"""What a user's own factory gives, torch's datasets and loaders, as a dataset that can be trained on.

Map-style datasets of images that fit are read into memory once (`ArrayDataset`). What does not fit, gives another image
when it is asked again (random transforms of its own), or has an order of its own (IterableDataset, DataLoader) is read
batch by batch (`BatchedDataset`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TypeGuard

import numpy as np
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Subset

from raydistill.datasets.arrays import ArrayDataset, as_they_are, channel_statistics
from raydistill.datasets.batched import BatchedDataset, Part
from raydistill.datasets.batches import images_and_labels
from raydistill.datasets.chance import Chance, begin
from raydistill.datasets.config import DatasetConfig
from raydistill.datasets.items import Label, halves, label_of, pixels, stacked
from raydistill.datasets.memory import available_memory
from raydistill.datasets.split import seeded_permutation, stratified_split
from raydistill.errors import ABSENT, ConfigError, DataError, Fault

Source = Dataset[object] | DataLoader[object]

WHERE = "dataset.name"
SPLITS = ("train", "validation", "test")
ASKED_TWICE = 16
"""Items that tell whether a dataset gives the same again."""

SAMPLE = 1024
"""Images that mean and std of what is not in memory are taken from, at least, if there are so many."""

TEST_FRACTION, TEST_SEED = 0.2, 0
"""Where only train is given a fifth of each class is the test split, whatever split_seed says."""

STANDS_IN = "there is no test split, figures of the test split are of the validation images"


def own_data(found: object, config: DatasetConfig) -> ArrayDataset | BatchedDataset:
    """found: a map-style Dataset (train), or a mapping of ``train`` and, if there are any, ``validation`` and ``test``
    to Datasets and DataLoaders, and ``classes`` to their names.

    Train alone is split three ways (test: a fifth, the same in every run); without ``test`` but with ``validation``
    the validation images stand for it, with a warning. IterableDataset and DataLoader cannot be split.

    Raises:
        ConfigError: the section asks for what such data cannot have. DataError: they are no images with labels.
    """
    parts, names = _parts(found, config.name)
    lengths = {split: _length(source, config.name, split) for split, source in parts.items()}
    mapped = {split: source for split, source in parts.items() if _is_mapped(source)}
    if "validation" not in parts and "train" not in mapped:
        rule = f"'{config.name}' gives no validation part, and {_kind(parts['train'])} cannot be split"
        raise DataError(Fault(WHERE, rule, way_out='return {"train": ..., "validation": ...}'))
    with _same_chance(parts["train"]):
        in_memory = len(mapped) == len(parts) and _is_to_be_held(mapped, lengths, config)
    if not in_memory and config.in_memory is True:
        rule = f"{', '.join(sorted({_kind(source) for source in parts.values()}))}: only map-style datasets can be held"
        raise ConfigError(Fault("dataset.in_memory", rule, True, "leave it out"))
    if in_memory:
        with _same_chance(parts["train"]):
            return _held(mapped, names, config)
    return _batched(parts, lengths, names, config)


def _parts(found: object, name: str) -> tuple[dict[str, Source], tuple[str, ...] | None]:
    given: Mapping[object, object] = found if isinstance(found, Mapping) else {"train": found}
    parts: dict[str, Source] = {}
    classes: object = None
    for key, value in given.items():
        if key == "classes":
            classes = value
        elif key not in SPLITS:
            raise DataError(
                Fault(WHERE, f"'{name}' gives an unknown part", key, f"it takes {', '.join(SPLITS)}, classes")
            )
        elif _is_source(value):
            parts[str(key)] = value
        else:
            rule = f"'{name}' must return an ArrayDataset, a StreamedDataset, a torch Dataset, or a mapping of parts"
            shown = type(value).__name__ if found is value else f"{type(value).__name__} as {key}"
            raise DataError(Fault(WHERE, rule, shown))
    if "train" not in parts:
        raise DataError(Fault(WHERE, f"'{name}' gives no train part", sorted(map(str, given))))
    if classes is None:
        classes = _classes_of(parts["train"])
    elif not isinstance(classes, Sequence) or isinstance(classes, str):
        raise DataError(Fault(WHERE, f"'{name}': classes must be a list of names", classes))
    return parts, tuple(map(str, classes)) if isinstance(classes, Sequence) and classes else None


def _is_source(value: object) -> TypeGuard[Source]:
    if isinstance(value, (Dataset, DataLoader)):
        return True
    return hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, (str, bytes, Mapping))


def _is_mapped(source: Source) -> TypeGuard[Dataset[object]]:
    return not isinstance(source, (IterableDataset, DataLoader))


def _kind(source: Source) -> str:
    if isinstance(source, DataLoader):
        return "a DataLoader"
    return "an IterableDataset" if isinstance(source, IterableDataset) else "a Dataset"


def _classes_of(source: Source) -> object:
    while isinstance(source, (Subset, DataLoader)):
        source = source.dataset
    classes = getattr(source, "classes", None)
    if not isinstance(classes, Sequence) or isinstance(classes, str):
        return None
    return classes if all(isinstance(entry, str) for entry in classes) else None


def _length(source: Source, name: str, split: str) -> int:
    try:
        length = len(source)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError) as error:
        rule = f"'{name}' gives {_kind(source)} as {split} that has no length"
        way_out = "give it a __len__: how many images one epoch has"
        raise DataError(Fault(WHERE, rule, ABSENT, way_out)) from error
    if length < 1:
        raise DataError(Fault(WHERE, f"'{name}' gives {_kind(source)} as {split} that is empty", length))
    return length


def _is_to_be_held(parts: Mapping[str, Dataset[object]], lengths: Mapping[str, int], config: DatasetConfig) -> bool:
    if config.in_memory is not True and config.in_memory != "auto":
        return False
    if config.in_memory is True:
        return True
    where = f"'{config.name}' train[0]"
    image = pixels(_item(parts["train"], 0, where)[0], where, config.channels, config.image_size)
    fits = sum(lengths.values()) * image.nbytes * 4 <= available_memory()
    return fits and not any(_changes(source, lengths[split], split, config) for split, source in parts.items())


def _changes(source: Dataset[object], length: int, split: str, config: DatasetConfig) -> bool:
    """Whether an item asked for twice is two images: it has been augmented, which must go on in every epoch."""
    for position in range(min(length, ASKED_TWICE)):
        where = f"'{config.name}' {split}[{position}]"
        first, second = (pixels(_item(source, position, where)[0], where, config.channels) for _ in range(2))
        if first.shape != second.shape or not np.array_equal(first, second, equal_nan=first.dtype != np.uint8):
            return True
    return False


def _item(source: Dataset[object], position: int, where: str) -> tuple[object, object]:
    try:
        item = source[position]
    except Exception as error:  # a user's own may fail in any way
        raise DataError(Fault(where, f"cannot be read ({type(error).__name__}: {error})")) from error
    return halves(item, where)


def _read(source: Dataset[object], count: int, split: str, config: DatasetConfig) -> tuple[np.ndarray, np.ndarray]:
    """(images (N, H, W, C), labels) of a whole map-style dataset."""
    images: np.ndarray | None = None
    labels: list[Label] = []
    for position in range(count):
        where = f"'{config.name}' {split}[{position}]"
        image, label = _item(source, position, where)
        values = pixels(image, where, config.channels, config.image_size)
        labels.append(label_of(label, f"the label of {where}"))
        if images is None:
            images = np.empty((count, *values.shape), dtype=values.dtype)
        if values.shape != images.shape[1:] or values.dtype != images.dtype:
            rule = f"every image must be {images.dtype} of shape {images.shape[1:]} (H, W, C), as the first is"
            found = f"{values.dtype} {values.shape}"
            raise DataError(Fault(where, rule, found, "dataset.image_size (--image-size) would resize all"))
        images[position] = values
    assert images is not None  # a source has a length above 0
    return images, stacked(labels, f"'{config.name}' {split}")


def _held(parts: Mapping[str, Dataset[object]], names: tuple[str, ...] | None, config: DatasetConfig) -> ArrayDataset:
    read = {split: _read(source, len(source), split, config) for split, source in parts.items()}  # type: ignore[arg-type]
    same = {(images.shape[1:], images.dtype.name, labels.shape[1:]) for images, labels in read.values()}
    if len(same) > 1:
        rule = f"'{config.name}': all parts must have images of one size and type, and labels of one kind"
        found = "; ".join(f"{split} {images.dtype} {images.shape[1:]}" for split, (images, _) in read.items())
        raise DataError(Fault(WHERE, rule, found))
    images, labels = read["train"]
    classes = _named(names, [labels for _, labels in read.values()], config.name)
    warning = ""
    test = read.get("test")
    if "validation" in read:
        kept: np.ndarray = np.arange(len(labels), dtype=np.int64)
        held_out = np.arange(len(labels), len(labels) + len(read["validation"][1]), dtype=np.int64)
        if test is None:
            test, warning = read["validation"], STANDS_IN
        images, labels = (np.concatenate(pair) for pair in zip(read["train"], read["validation"], strict=True))
    else:
        if test is None:
            rest, tested = stratified_split(labels, TEST_FRACTION, TEST_SEED, classes)
            test = images[tested], labels[tested]
            images, labels = images[rest], labels[rest]
        kept, held_out = stratified_split(labels, config.validation, config.split_seed, classes)
    floats = images.dtype != np.uint8
    mean, std = as_they_are(images.shape[3]) if floats else channel_statistics(images[kept])
    augment = "none" if config.augment == "auto" else config.augment
    return ArrayDataset(
        config.name, classes, mean, std, augment, images, labels, *test, kept, held_out, warning=warning
    )


def _named(names: tuple[str, ...] | None, labels: Sequence[np.ndarray], name: str) -> tuple[str, ...]:
    """The classes' names; their numbers where nobody names them."""
    count = max(part.shape[1] if part.ndim == 2 else int(part.max()) + 1 for part in labels)
    if names is None:
        return tuple(map(str, range(count)))
    if count > len(names) or (labels[0].ndim == 2 and count != len(names)):
        raise DataError(Fault(WHERE, f"'{name}' names {len(names)} classes, and its labels have", count))
    return names


def _batched(
    sources: Mapping[str, Source],
    lengths: Mapping[str, int],
    names: tuple[str, ...] | None,
    config: DatasetConfig,
) -> BatchedDataset:
    if config.augment not in ("auto", "none"):
        rule = "data that are read batch by batch are augmented by transforms of their own"
        raise ConfigError(Fault("dataset.augment", rule, config.augment, "leave it out"))
    images, labels = _sample(sources["train"], config)
    floats = images.dtype != np.uint8
    size = images.shape[1:3]
    if config.image_size not in (None, size):
        rule = f"{_kind(sources['train'])} gives images of {'x'.join(map(str, size))} that are not resized"
        raise ConfigError(Fault("dataset.image_size", rule, config.image_size, "resize them in its transforms"))
    mean, std = as_they_are(images.shape[3]) if floats else channel_statistics(images)
    train = labels
    parts: dict[str, Part] = {}
    if names is None or ("validation" not in sources):
        train = _all_labels(sources["train"], lengths["train"], config)
    classes = _named(names, [train], config.name)
    for split, source in sources.items():
        sizes = _batch_sizes(source, split, config.name) if isinstance(source, DataLoader) else ()
        parts[split] = Part(source, sum(sizes) or lengths[split], sizes)
    warning = ""
    if "validation" not in parts:
        rest = np.arange(len(train), dtype=np.int64)
        if "test" not in parts:
            rest, tested = stratified_split(train, TEST_FRACTION, TEST_SEED, classes)
            parts["test"] = Part(sources["train"], len(tested), index=tested)
        kept, held_out = (rest[rows] for rows in stratified_split(
            train[rest], config.validation, config.split_seed, classes
        ))  # fmt: skip
        parts["train"] = Part(sources["train"], len(kept), index=kept)
        parts["validation"] = Part(sources["train"], len(held_out), index=held_out)
    elif "test" not in parts:
        parts["test"], warning = parts["validation"], STANDS_IN
    return BatchedDataset(
        config.name, classes, mean, std, parts, size, "grey" if len(mean) == 1 else "rgb", floats,
        train.ndim == 2, config.image_size is not None, config.workers, warning=warning, arguments=dict(config.args),
    )  # fmt: skip


def _same_chance(source: Source) -> Chance:
    """What is found out of a source before training is the same in every run, whatever was drawn before."""
    if isinstance(source, DataLoader):
        begin(source, 0, 0)
    return Chance(0)


def _sample(source: Source, config: DatasetConfig) -> tuple[np.ndarray, np.ndarray]:
    """Some of the train images (N, H, W, C) and their labels."""
    name = f"'{config.name}' train"
    images: list[np.ndarray] = []
    labels: list[Label] = []
    with _same_chance(source):
        if isinstance(source, DataLoader):
            for batch in source:
                tensors = images_and_labels(batch, f"a batch of {name}")
                images += [pixels(image, f"an image of {name}", config.channels) for image in tensors[0]]
                labels += [label_of(label, f"a label of {name}") for label in tensors[1]]
                if len(images) >= SAMPLE:
                    break
        elif isinstance(source, IterableDataset):
            for item in islice(source, SAMPLE):
                image, label = halves(item, f"an item of {name}")
                images.append(pixels(image, f"an image of {name}", config.channels, config.image_size))
                labels.append(label_of(label, f"a label of {name}"))
        else:
            length = len(source)  # type: ignore[arg-type]
            for position in np.sort(seeded_permutation(length, 0)[:SAMPLE]).tolist():
                where = f"{name}[{position}]"
                image, label = _item(source, position, where)
                images.append(pixels(image, where, config.channels, config.image_size))
                labels.append(label_of(label, f"the label of {where}"))
    if not images:
        raise DataError(Fault(WHERE, f"{name}: {_kind(source)} is empty"))
    shapes = sorted({f"{image.dtype} {image.shape}" for image in images})
    if len(shapes) > 1:
        rule = f"{name}: all images must be of one size and type (H, W, C)"
        raise DataError(Fault(WHERE, rule, " and ".join(shapes[:3]), "resize them in its transforms"))
    return np.stack(images), stacked(labels, name)


def _all_labels(source: Source, length: int, config: DatasetConfig) -> np.ndarray:
    """Those of a whole train part: its ``targets`` or ``labels`` if some items agree with them, else all items'."""
    name = f"'{config.name}' train"
    labels: list[Label] = []
    with _same_chance(source):
        if isinstance(source, DataLoader):
            for batch in source:
                labels += [label_of(label, name) for label in images_and_labels(batch, f"a batch of {name}")[1]]
        elif isinstance(source, IterableDataset):
            labels = [label_of(halves(item, name)[1], name) for item in islice(source, length)]
        else:
            kept = _kept_labels(source, length, config)
            if kept is not None:
                return kept
            labels = [label_of(_item(source, i, f"{name}[{i}]")[1], f"{name}[{i}]") for i in range(length)]
    return stacked(labels, name)


def _kept_labels(source: Dataset[object], length: int, config: DatasetConfig) -> np.ndarray | None:
    for key in ("targets", "labels"):
        try:
            kept = np.asarray(getattr(source, key))
        except Exception:  # nosec B112 - it has none, or of another kind
            continue
        if kept.shape != (length,) or not np.issubdtype(kept.dtype, np.integer):
            continue
        looked_at = seeded_permutation(length, 1)[:ASKED_TWICE].tolist()
        where = f"'{config.name}' train"
        if all(label_of(_item(source, i, where)[1], where) == int(kept[i]) for i in looked_at):
            return kept.astype(np.int64)
    return None


def _batch_sizes(loader: DataLoader[object], split: str, name: str) -> tuple[int, ...]:
    """Rows of each batch, from what the loader says of itself if it does, else from a pass over it."""
    sampler = loader.batch_sampler
    if type(sampler) is BatchSampler and not isinstance(loader.dataset, IterableDataset):
        count, size = len(sampler.sampler), sampler.batch_size  # type: ignore[arg-type]
        sizes = [size] * (count // size) + ([count % size] if count % size and not sampler.drop_last else [])
    elif isinstance(sampler, (list, tuple)):
        sizes = [len(rows) for rows in sampler]
    else:
        with _same_chance(loader):
            sizes = [len(images_and_labels(batch, f"a batch of '{name}' {split}")[1]) for batch in loader]
    if not sum(sizes):
        raise DataError(Fault(WHERE, f"'{name}' gives a DataLoader as {split} that is empty", 0))
    return tuple(sizes)
