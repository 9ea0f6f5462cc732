from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from raydistill.errors import CheckpointError, ConfigError, DataError
from raydistill.tasks.regression.columns import Columns

TRAIN = pd.DataFrame(
    {
        "area": [10, 20, 30, 40], "town": ["b", "a", "b", "c"], "old": [True, False, False, False],
        "same": [7.0] * 4, "price": [1.0, 2.0, 3.0, 6.0],
    }
)  # fmt: skip
TEST = pd.DataFrame(
    {"price": [3.0, 7.0], "town": ["d", "c"], "area": [25, 45], "old": [False, True], "same": [8.0, 7.0]}
)


def test_numbers_are_standardised_and_texts_are_one_hot_as_train_has_them() -> None:
    columns = Columns.of(TRAIN, ["price"], None, "train.csv")
    features, targets = columns.numbers(TEST, "test.csv")
    assert columns.inputs == 6
    area = np.sqrt(125.0)
    old = np.sqrt(3) / 4  # one of four
    expected = [[0, 0, 0, 0, -0.25 / old, 1], [20 / area, 0, 0, 1, 0.75 / old, 0]]
    assert features == pytest.approx(np.array(expected, dtype=np.float32), abs=1e-6)
    assert targets[:, 0] == pytest.approx([0, 4 / np.sqrt(3.5)], abs=1e-6)
    assert (features.dtype, targets.dtype) == (np.float32, np.float32)
    of_train, _ = columns.numbers(TRAIN, "train.csv")
    assert of_train.mean(axis=0)[[0, 4]] == pytest.approx([0, 0], abs=1e-6)
    assert of_train.std(axis=0)[[0, 4]] == pytest.approx([1, 1], abs=1e-6)


def test_features_are_those_named_in_their_order() -> None:
    columns = Columns.of(TRAIN, ["price", "area"], ["same", "old"], "train.csv")
    assert [one.name for one in columns.features] == ["same", "old"]
    assert [one.name for one in columns.targets] == ["price", "area"]
    assert columns.described()["sizes"] == {"inputs": 2, "outputs": 2}


def test_a_checkpoint_gives_them_back() -> None:
    columns = Columns.of(TRAIN, ["price"], None, "train.csv")
    assert Columns.of_checkpoint(columns.described(), "ckpt") == columns
    assert Columns.of_checkpoint({}, "ckpt") is None
    for damaged in (3, {"features": []}, {"features": [{"name": "a"}], "targets": []}):
        with pytest.raises(CheckpointError, match=r"ckpt: is damaged: its 'columns' are not what they must be"):
            Columns.of_checkpoint({"columns": damaged}, "ckpt")


def changed(**columns: Any) -> pd.DataFrame:
    return TRAIN.assign(**columns)


@pytest.mark.parametrize(
    ("table", "targets", "features", "error", "says"),
    [
        (TRAIN, ["prize"], None, ConfigError, "task.args.target: no such column in t.csv, got 'prize'; did"),
        (TRAIN, ["price"], ["aera"], ConfigError, "task.args.features: no such column in t.csv, got 'aera'"),
        (TRAIN, ["price"], ["price"], ConfigError, "task.args.features: holds a target, got 'price'; leave it out"),
        (TRAIN[["price"]], ["price"], None, ConfigError, "task.args.features: must name a column"),
        (TRAIN, ["town"], None, DataError, "t.csv: column 'town': must be of numbers"),
        (changed(area=[1, None, 3, None]), ["price"], None, DataError, "column 'area': is empty in 2 of 4 rows; fill"),
        (changed(town=["a", None, "b", "c"]), ["price"], None, DataError, "column 'town': is empty in 1 of 4 rows"),
        (changed(price=[1, 2, 3, np.inf]), ["price"], None, DataError, "column 'price': must be finite, 1 of 4"),
        (changed(day=pd.date_range("2026-01-01", periods=4)), ["price"], None, ConfigError, "'day': is of times"),
        (
            pd.DataFrame({"id": [f"n{n}" for n in range(1001)], "y": range(1001)}), ["y"], None, ConfigError,
            "column 'id': has 1,001 different texts, more than 1,000; leave it out: task.args.features names",
        ),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_used_are_one_line(
    table: pd.DataFrame, targets: list[str], features: list[str] | None, error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        Columns.of(table, targets, features, "t.csv")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_that_lacks_a_column_is_one_line() -> None:
    columns = Columns.of(TRAIN, ["price"], None, "train.csv")
    with pytest.raises(DataError, match=r"test.csv: lacks a column, got 'area'; give all parts the same columns"):
        columns.numbers(TEST.drop(columns="area"), "test.csv")
    with pytest.raises(DataError, match=r"test.csv: column 'area': must be of numbers; could not convert"):
        columns.numbers(TEST.assign(area=["wide", "3"]), "test.csv")
