"""Where a regression's rows are from: each row in one part, and the same part each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from raydistill.datasets import DatasetConfig
from raydistill.errors import DataError
from raydistill.tasks.regression.tables import own_tensors, tables

HERE = "tests.tasks.regression.tensors"


def numbered(count: int) -> pd.DataFrame:
    return pd.DataFrame({"row": range(count), 7: np.linspace(0, 1, count)})


def rows_of(found: dict[str, pd.DataFrame]) -> dict[str, list[int]]:
    return {part: table["row"].tolist() for part, table in found.items()}


@pytest.mark.parametrize("count", [3, 10, 101])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_one_file_gives_every_row_to_one_part(tmp_path: Path, count: int, kind: str) -> None:
    file = tmp_path / f"rows.{kind}"
    table = numbered(count).rename(columns=str)
    table.to_csv(file, index=False) if kind == "csv" else table.to_parquet(file)
    data = DatasetConfig(data_dir=str(file), validation=0.25)
    found, where = tables(data, {})
    assert set(where.values()) == {str(file)}
    parts = rows_of(found)
    assert sorted(row for part in parts.values() for row in part) == list(range(count))
    assert all(part == sorted(part) and part for part in parts.values())
    assert len(parts["test"]) == max(1, round(count / 5))
    assert len(parts["validation"]) == max(1, round((count - len(parts["test"])) / 4))
    assert rows_of(tables(data, {})[0]) == parts
    assert list(found["train"].columns) == ["row", "7"]
    if count == 101:
        other = rows_of(tables(replace(data, split_seed=3), {})[0])
        assert other["test"] == parts["test"]
        assert other["validation"] != parts["validation"]


def test_a_folder_without_validation_holds_some_of_train_out(tmp_path: Path) -> None:
    numbered(20).to_csv(tmp_path / "a_train.csv", index=False)
    numbered(5).to_csv(tmp_path / "a_test.csv", index=False)
    found, where = tables(DatasetConfig(data_dir=str(tmp_path), validation=0.1), {})
    parts = rows_of(found)
    assert sorted(parts["train"] + parts["validation"]) == list(range(20))
    assert (len(parts["validation"]), parts["test"]) == (2, list(range(5)))
    assert where["validation"] == where["train"] == str(tmp_path / "a_train.csv")
    numbered(4).to_csv(tmp_path / "mine.csv", index=False)
    named, _ = tables(DatasetConfig(data_dir=str(tmp_path)), {"validation": "mine.csv"})
    assert rows_of(named) == {"train": list(range(20)), "validation": list(range(4)), "test": list(range(5))}


def test_one_row_cannot_be_split(tmp_path: Path) -> None:
    numbered(2).to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(DataError, match=r"few.csv: has too few rows to hold some out, got 1; give more"):
        tables(DatasetConfig(data_dir=str(tmp_path / "few.csv")), {})


def test_diabetes_is_scikit_learns_unscaled() -> None:
    from sklearn.datasets import load_diabetes

    found, where = tables(DatasetConfig("diabetes"), {})
    whole = pd.concat(found.values()).sort_index()
    expected = load_diabetes(as_frame=True, scaled=False).frame
    pd.testing.assert_frame_equal(whole, expected)
    assert set(where.values()) == {"diabetes"}


@pytest.mark.parametrize(("name", "count"), [("whole", 100), ("pairs", 50)])
def test_tensors_in_one_piece_are_each_in_one_part(name: str, count: int) -> None:
    parts = own_tensors(DatasetConfig(f"{HERE}:{name}"))
    features, targets = (torch.cat([rows[place] for rows in parts.values()]) for place in (0, 1))
    assert (features.shape, targets.shape, targets.dtype) == ((count, 2), (count, 1), torch.float32)
    assert torch.allclose(targets[:, 0], 10 + 3 * features[:, 0] - features[:, 1], atol=1e-5)  # rows stay whole
    assert len(torch.unique(features, dim=0)) == count


def test_parts_that_are_given_stay_what_they_are() -> None:
    parts = own_tensors(DatasetConfig(f"{HERE}:all_parts"))
    assert {part: len(rows[0]) for part, rows in parts.items()} == {"train": 40, "validation": 10, "test": 20}
    split = own_tensors(DatasetConfig(f"{HERE}:parts", validation=0.25))
    assert {part: len(rows[0]) for part, rows in split.items()} == {"train": 30, "validation": 10, "test": 20}
    together = torch.cat([split["train"][0], split["validation"][0]])
    assert torch.equal(together.sort(0).values, parts["train"][0].sort(0).values)
