"""Where a regression's rows are from: CSV and Parquet files, scikit-learn's diabetes, a factory of one's own."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from raydistill.datasets.config import DatasetConfig
from raydistill.datasets.split import seeded_permutation
from raydistill.errors import ABSENT, ConfigError, DataError, Fault
from raydistill.resolve import in_folder, resolve
from raydistill.tasks.base import TEST, TRAIN, VALIDATION
from raydistill.tasks.files import PARTS, content_of, find_parts

if TYPE_CHECKING:
    import pandas

DIABETES = "diabetes"
_PARQUET = (".parquet", ".pq")
_ENDINGS = (".csv", *_PARQUET)
_TEST_SHARE = 0.2
"""Of rows that come in one piece; which ones is a property of the data, the same in every run."""


def tables(data: DatasetConfig, named: Mapping[str, str]) -> tuple[dict[str, pandas.DataFrame], dict[str, str]]:
    """The rows of each part, and where they are from. named: see `files.find_parts`.

    Raises:
        ConfigError, DataError: they cannot be had.
    """
    if data.data_dir is None:
        if data.name != DIABETES:
            way_out = f"give --data-dir (CSV or Parquet), dataset.name: {DIABETES}, or pkg.mod:factory"
            raise ConfigError(Fault("dataset.name", "is no table", data.name, way_out))
        from sklearn.datasets import load_diabetes

        whole = load_diabetes(as_frame=True, scaled=False).frame
        return _parts_of(whole, data, DIABETES), dict.fromkeys(PARTS, DIABETES)
    files = find_parts(data.data_dir, named, "table", _ENDINGS, needed=(TRAIN, TEST))
    if len(set(files.values())) == 1:
        file = files[TRAIN]
        return _parts_of(_read(file), data, str(file)), dict.fromkeys(PARTS, str(file))
    read = {part: _read(file) for part, file in files.items()}
    if VALIDATION not in read:
        kept, held_out = _split(len(read[TRAIN]), data, str(files[TRAIN]))
        files[VALIDATION] = files[TRAIN]
        read[TRAIN], read[VALIDATION] = read[TRAIN].iloc[kept], read[TRAIN].iloc[held_out]
    return read, {part: str(file) for part, file in files.items()}


def own_tensors(data: DatasetConfig) -> dict[str, tuple[Tensor, Tensor]]:
    """(features, targets) of each part from ``pkg.mod:factory``, which is called with the `DatasetConfig`.

    It returns a mapping of parts (validation may be left out), or one of them all: a tuple of two tensors, or a torch
    Dataset of such pairs.

    Raises:
        ConfigError, DataError: it returns something else.
    """
    factory = resolve(data.name, {}, "dataset.name", "dataset")
    if not callable(factory):
        raise ConfigError(Fault("dataset.name", "must be a callable factory", data.name, "name a function"))
    with in_folder():
        made = factory(data)
    if isinstance(made, Mapping):
        if not {TRAIN, TEST} <= set(made) <= set(PARTS):
            way_out = f"give {TRAIN}, {TEST} and perhaps {VALIDATION}"
            raise DataError(Fault(f"dataset {data.name}", "returns other parts", sorted(map(str, made)), way_out))
        parts = {part: _tensors(rows, data.name) for part, rows in made.items()}
        if VALIDATION not in parts:
            kept, held_out = _split(len(parts[TRAIN][0]), data, data.name)
            parts[VALIDATION], parts[TRAIN] = _rows(parts[TRAIN], held_out), _rows(parts[TRAIN], kept)
        return parts
    rows = _tensors(made, data.name)
    return {part: _rows(rows, places) for part, places in _places(len(rows[0]), data, data.name).items()}


def _parts_of(whole: pandas.DataFrame, data: DatasetConfig, where: str) -> dict[str, pandas.DataFrame]:
    return {part: whole.iloc[places] for part, places in _places(len(whole), data, where).items()}


def _places(count: int, data: DatasetConfig, where: str) -> dict[str, np.ndarray]:
    """The rows of each part, of `count` in one piece: a fifth is for the test, of the rest a share for validation."""
    order = seeded_permutation(count, 0)
    of_test = max(1, round(_TEST_SHARE * count))
    test, others = np.sort(order[:of_test]), np.sort(order[of_test:])
    kept, held_out = _split(len(others), data, where)
    return {TRAIN: others[kept], VALIDATION: others[held_out], TEST: test}


def _split(count: int, data: DatasetConfig, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out), ascending."""
    if count < 2:
        raise DataError(Fault(where, "has too few rows to hold some out", count, "give more"))
    order = seeded_permutation(count, data.split_seed, 1)
    held_out = min(max(1, round(data.validation * count)), count - 1)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def _read(file: Path) -> pandas.DataFrame:
    import pandas

    content = io.BytesIO(content_of(file))
    kind = "Parquet" if file.suffix.lower() in _PARQUET else "CSV"
    try:
        table = pandas.read_parquet(content) if kind == "Parquet" else pandas.read_csv(content)
    except Exception as error:  # pandas and its engines raise what they like
        rule = f"is no {kind} table ({type(error).__name__}: {error})"
        raise DataError(Fault(str(file), rule, ABSENT, "give one with a line of names and a row a sample")) from error
    table.columns = [str(name) for name in table.columns]
    if not len(table):
        raise DataError(Fault(str(file), "has no rows", ABSENT, "give some"))
    return table


def _tensors(rows: Any, name: str) -> tuple[Tensor, Tensor]:
    """Float32 (N, ...) and (N, targets)."""
    if isinstance(rows, Dataset) and hasattr(rows, "__len__") and len(rows):
        rows = default_collate([rows[place] for place in range(len(rows))])
    pair = isinstance(rows, Sequence) and len(rows) == 2
    if not pair or not all(isinstance(one, Tensor) and one.dim() > 0 and len(one) for one in rows):
        rule = f"'{name}' must give (features, targets): two tensors, or a torch Dataset of such pairs"
        raise DataError(Fault("dataset.name", rule, type(rows).__name__, "or a mapping of parts to them"))
    features, targets = rows
    if len(features) != len(targets):
        rule = f"'{name}' must give as many targets as features"
        raise DataError(Fault("dataset.name", rule, (len(features), len(targets))))
    for what, values in (("features", features), ("targets", targets)):
        if not bool(torch.isfinite(values.float()).all()):
            raise DataError(Fault("dataset.name", f"'{name}' must give finite {what}", ABSENT, "leave those rows out"))
    return features.float(), targets.float().reshape(len(targets), -1)


def _rows(rows: tuple[Tensor, Tensor], places: np.ndarray) -> tuple[Tensor, Tensor]:
    index = torch.from_numpy(places)
    return rows[0][index], rows[1][index]
