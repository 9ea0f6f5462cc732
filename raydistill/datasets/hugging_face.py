"""``hugging_face``: a folder that the library ``datasets`` wrote (`save_to_disk`), or one of Parquet files.

Nothing is fetched, and no code that comes with a dataset is run: Parquet and Arrow hold values only, and the content of
an image is decoded here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Dataset

from raydistill.datasets.arrays import ArrayDataset
from raydistill.datasets.batched import BatchedDataset
from raydistill.datasets.config import DatasetConfig
from raydistill.datasets.decode import decode_content
from raydistill.datasets.items import IMAGE_KEYS, LABEL_KEYS
from raydistill.datasets.own_data import own_data
from raydistill.errors import ABSENT, ConfigError, DataError, Fault, close_match

if TYPE_CHECKING:
    import datasets

WHERE = "dataset.data_dir"
SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""What splits are called, in files and by people."""


def hugging_face(config: DatasetConfig, cache_dir: Path) -> ArrayDataset | BatchedDataset:
    """``config.data_dir``: a folder of `save_to_disk`, of one split or of several, or one with Parquet files in it or
    in its ``data/`` folder, named after their split (``train-00000-of-00002.parquet``; ``train.parquet``).

    ``config.args``: ``image`` and ``label``, the columns; left out, those of that kind or of usual names. A label is a
    class, or a list of classes where an image has several. What is missing of the splits is as in `own_data`.

    Raises:
        ConfigError: no data_dir, unknown arguments or columns, or the package is missing. DataError: the folder holds
        nothing of the kind, or is damaged.
    """
    unknown = sorted(set(config.args) - {"image", "label"})
    if unknown:
        raise ConfigError(Fault(f"dataset.args.{unknown[0]}", "unknown key", ABSENT, "it takes image, label"))
    if config.data_dir is None:
        raise ConfigError(Fault(WHERE, "'hugging_face' needs a folder", None, "--data-dir DIR"))
    root = Path(config.data_dir).expanduser().absolute()
    if not root.is_dir():
        raise DataError(Fault(WHERE, "the data folder does not exist", str(root), "check the path"))
    tables = _tables(root, cache_dir)
    if "train" not in tables:
        rule = f"'{root}' must hold a train split"
        raise DataError(Fault(WHERE, rule, sorted(tables) or "nothing that can be read"))
    parts: dict[str, object] = {split: _Rows(table, config.args, root, split) for split, table in tables.items()}
    first = parts["train"]
    assert isinstance(first, _Rows)
    if first.classes:
        parts["classes"] = first.classes
    return own_data(parts, config)


class _Rows(Dataset[tuple[object, object]]):
    """A split as (image, label). classes: their names, () where the table does not say them.

    Raises:
        ConfigError: a column is missing, or not said by its name or kind.
    """

    def __init__(self, table: datasets.Dataset, args: Mapping[str, object], root: Path, split: str) -> None:
        features = table.features
        self._root, self._split = root, split
        image = _column(features, args.get("image"), "image", "Image", IMAGE_KEYS)
        label = _column(features, args.get("label"), "label", "ClassLabel", LABEL_KEYS)
        kind = features[label]
        self._several = getattr(kind, "feature", None) is not None
        of_label = kind.feature if self._several else kind
        self.classes: Sequence[str] = tuple(getattr(of_label, "names", None) or ())
        table = table.with_format(None).select_columns([image, label])
        if type(features[image]).__name__ == "Image":  # their own decoder takes formats that run programs
            table = table.cast_column(image, type(features[image])(decode=False))
        self._table, self._image, self._label = table, image, label
        if not self._several:
            self.targets = np.asarray(table.with_format("numpy")[label][:])

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, position: int) -> tuple[object, object]:
        row = self._table[position]
        image, label = row[self._image], row[self._label]
        where = f"{self._root} {self._split}[{position}]"
        if isinstance(image, bytes):
            image = {"bytes": image}
        if isinstance(image, Mapping):
            content = image.get("bytes")
            if content is None:
                if not image.get("path"):
                    raise DataError(Fault(where, "has no image"))
                content = (self._root / str(image["path"])).read_bytes()
            image = decode_content(content, where)
        elif isinstance(image, list):  # Array2D, Array3D
            image = np.asarray(image)
            image = image.astype(np.uint8) if image.dtype.kind in "iu" and _is_of_bytes(image) else image
        if self._several and self.classes:
            several: np.ndarray = np.zeros(len(self.classes), dtype=np.uint8)
            several[list(label)] = 1
            label = several
        return image, label


def _is_of_bytes(image: np.ndarray) -> bool:
    return bool(image.size and image.min() >= 0 and image.max() <= 255)


def _column(features: Mapping[str, object], asked: object, what: str, kind: str, usual: Sequence[str]) -> str:
    """The column that is asked for, else the only one of that kind, else the first of a usual name."""
    if asked is not None:
        if asked not in features:
            raise ConfigError(Fault(f"dataset.args.{what}", "no such column", asked, close_match(asked, features)))
        return str(asked)
    of_kind = [
        name for name, found in features.items()
        if kind in (type(found).__name__, type(getattr(found, "feature", None)).__name__)
    ]  # fmt: skip
    named = [name for name in usual if name in features]
    if len(of_kind) == 1 or (of_kind and not named):
        return of_kind[0]
    if named:
        return named[0]
    way_out = f"dataset: {{args: {{{what}: COLUMN}}}}"
    raise ConfigError(Fault(f"dataset.args.{what}", f"no column is said to be the {what}", sorted(features), way_out))


def _tables(root: Path, cache_dir: Path) -> dict[str, datasets.Dataset]:
    """By split. A table of no split at all is train."""
    try:
        import datasets
    except ImportError as error:
        way_out = "pip install 'raydistill[hugging-face-datasets]'"
        raise ConfigError(
            Fault("dataset.name", "'hugging_face' needs the package datasets", ABSENT, way_out)
        ) from error
    with _quiet(datasets):
        try:
            if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
                found = datasets.load_from_disk(str(root))
                return _by_split(found if isinstance(found, Mapping) else {"train": found}, root)
            files: dict[str, list[str]] = {}
            for file in sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")]):
                files.setdefault(file.stem.partition("-")[0].partition(".")[0], []).append(str(file))
            if not files:
                entries = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
                rule = f"'{root}' must be a folder of save_to_disk, or hold Parquet files"
                raise DataError(Fault(WHERE, rule, entries, "a split a file, such as train.parquet"))
            if len(files) == 1 and not set(files) & set(SPLITS):
                files = {"train": next(iter(files.values()))}
            cache = str(cache_dir / "hugging_face")
            return _by_split(
                {split: datasets.Dataset.from_parquet(paths, cache_dir=cache) for split, paths in files.items()}, root
            )
        except DataError:
            raise
        except Exception as error:  # a damaged file ends Arrow's readers in many ways
            said = str(error.__cause__ or error).strip().splitlines()
            reason = said[0] if said else type(error).__name__
            raise DataError(Fault(WHERE, f"'{root}' is damaged or cannot be read ({reason})")) from error


def _by_split(tables: Mapping[str, datasets.Dataset], root: Path) -> dict[str, datasets.Dataset]:
    found: dict[str, datasets.Dataset] = {}
    for name, table in tables.items():
        split = SPLITS.get(str(name).lower())
        if split is None:
            continue  # such as unsupervised, extra: not asked for
        if split in found:
            raise DataError(Fault(WHERE, f"'{root}' has two splits for {split}", sorted(map(str, tables))))
        found[split] = table
    return found


@contextlib.contextmanager
def _quiet(library: object) -> Iterator[None]:
    """Without its progress bars."""
    was_on = not library.are_progress_bars_disabled()  # type: ignore[attr-defined]
    library.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if was_on:
            library.enable_progress_bars()  # type: ignore[attr-defined]
