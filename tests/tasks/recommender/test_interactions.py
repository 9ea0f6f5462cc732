from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raydistill.errors import ConfigError, DataError
from raydistill.tasks.recommender.interactions import interactions, read_interactions
from tests.tasks.recommender.ratings import rows, write

FEW = np.array([[7, 50, 3], [7, 20, 1], [7, 30, 2], [9, 20, 5], [7, 40, 9], [9, 30, 1], [7, 20, 8], [9, 60, 4]])


def test_the_last_is_for_the_test_the_one_before_for_validation() -> None:
    found = interactions(FEW, "few")
    assert found.users.tolist() == [7, 9]
    assert found.items.tolist() == [20, 30, 40, 50, 60]
    # user 7 in the order of time: 30, 50, 20 (again, which counts), 40; user 9: 30, 60, 20
    assert found.train.tolist() == [[0, 1], [0, 3], [1, 1]]
    assert found.held_out["validation"].tolist() == [[0, 0], [1, 4]]
    assert found.held_out["test"].tolist() == [[0, 2], [1, 0]]
    assert found.seen.tolist() == [0, 1, 2, 3, 5, 6, 9]
    assert found.trained.tolist() == [1, 3, 6]


def test_users_of_few_items_are_trained_on_only() -> None:
    found = interactions(np.concatenate([FEW, [[1, 20, 1], [1, 70, 2]]]), "few")
    assert found.users.tolist() == [1, 7, 9]
    assert found.held_out["test"][:, 0].tolist() == [1, 2]
    assert [0, 5] in found.train.tolist()
    with pytest.raises(
        DataError, match=r"few: has no user of 3 items or more, so that none can be held out, got 2; give"
    ):
        interactions(FEW[FEW[:, 0] == 9][:2], "few")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["u.data", "ratings.dat", "ratings.csv"])
@pytest.mark.parametrize("named", [True, False])
def test_all_forms_say_the_same(tmp_path: Path, name: str, named: bool) -> None:
    file = write(tmp_path, name)
    found, where = read_interactions(str(file if named else tmp_path))
    expected = interactions(rows()[:, [0, 1, 3]], "rows")
    assert where == file
    assert np.array_equal(found.seen, expected.seen)
    assert np.array_equal(found.held_out["test"], expected.held_out["test"])
    assert len(found.train) == 120 * 12


def test_ratings_with_halves_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3.5,10\n1,3,4.0,11\n1,4,0.5,12\n")
    assert read_interactions(str(tmp_path))[0].train.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "u.data: is empty"),
        (b"1\t2\t3\n", "u.data: has 1 rows of 3 columns; give user, item, rating, time: tabs (u.data)"),
        (b"userId,movieId,rating,timestamp\n", "u.data: has 0 rows of 4 columns"),
        (b"a\tb\tc\td\n", "u.data: must have whole numbers for users, items and times; give user, item"),
        (b"1\t2\t3\t\n1\t2\t3\t4\n", "u.data: must have whole numbers"),
        (b"\x00\xff::\xfe\n1\t2", "u.data: "),
    ],
)
def test_files_of_another_form_are_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "u.data").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_interactions(str(tmp_path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_places_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset.data_dir: must be given: where the ratings are; give a file, or a"):
        read_interactions(None)
    with pytest.raises(DataError, match=r"dataset.data_dir: no such file or folder"):
        read_interactions(str(tmp_path / "gone"))
    with pytest.raises(
        ConfigError, match=r"must hold one of u.data, ratings.dat, ratings.csv, got \[\]; or name the file"
    ):
        read_interactions(str(tmp_path))
    write(tmp_path, "u.data")
    write(tmp_path, "ratings.dat")
    with pytest.raises(ConfigError, match=r"must hold one of .*, got \['u.data', 'ratings.dat'\]"):
        read_interactions(str(tmp_path))
