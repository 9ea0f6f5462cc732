"""The cache is there whole or not at all, and a damaged one is replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raydistill.datasets.decoded_cache import read_cache, write_cache
from raydistill.errors import StorageError

TRAIN = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
TEST = TRAIN[:1] + 1


def test_what_is_written_is_mapped_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "cache"
    assert read_cache(folder) is None
    write_cache(folder, TRAIN, TEST, {"mean": [0.25]})
    cached = read_cache(folder)
    assert cached is not None
    train, test, facts = cached
    assert (train == TRAIN).all()
    assert (test == TEST).all()
    assert facts == {"mean": [0.25]}
    assert type(train) is np.ndarray
    assert not train.flags.writeable
    assert [entry.name for entry in folder.parent.iterdir()] == ["cache"]


@pytest.mark.parametrize("file", ["train.npy", "facts.json"])
def test_half_a_file_is_no_cache_and_does_not_stand_in_the_way(tmp_path: Path, file: str) -> None:
    folder = tmp_path / "cache"
    write_cache(folder, TRAIN, TEST, {})
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    assert read_cache(folder) is None
    write_cache(folder, TRAIN, TEST, {})
    assert read_cache(folder) is not None


def test_the_second_writer_of_one_cache_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    write_cache(folder, TRAIN, TEST, {"writer": 1})
    write_cache(folder, TRAIN, TEST, {"writer": 2})
    cached = read_cache(folder)
    assert cached is not None
    assert cached[2] == {"writer": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["cache"]


def test_a_place_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot keep the decoded images"):
        write_cache(tmp_path / "file" / "cache", TRAIN, TEST, {})


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StorageError, match="No space left"):
        write_cache(tmp_path / "cache", TRAIN, TEST, {})
    assert list(tmp_path.iterdir()) == []
