"""A sweep read from its folder: by name, by path, the latest; after it was moved; damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raydistill.errors import ConfigError, StorageError
from raydistill.records import BASELINE
from raydistill.search.constraints import Constraint
from raydistill.sweep.results.read import read_sweep
from tests.sweep.kept import OBJECTIVES, keep_sweep

pytestmark = pytest.mark.slow  # networks are trained


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("storage")
    keep_sweep(root)
    return root


def test_it_is_found_by_name_by_folder_and_as_the_latest(
    storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(storage)
    for sweep, where in (("tiny", str(storage)), (str(storage / "tiny"), "none"), ("tiny", "x"), (None, str(storage))):
        found = read_sweep(sweep, where)
        assert (found.name, found.kept, found.sweep_id) == ("tiny", str(storage / "tiny"), "s" * 8)
    assert list(found.records) == [BASELINE, "t0000", "t0001", "t0002", "t0003"]
    assert found.judgement.objectives == OBJECTIVES
    assert found.baseline is found.records[BASELINE]
    ids = [row.record.trial_id for row in found.rows()]
    assert sorted(ids) == [BASELINE, "t0000", "t0001", "t0002"]  # the stopped one is no point
    bounded = found.rows([Constraint("sparsity", ">=", 0.5)])
    assert all(row.violations for row in bounded if row.record.last.sparsity < 0.5)  # type: ignore[union-attr]


def test_it_is_read_where_it_was_moved_to(storage: Path, tmp_path: Path) -> None:
    shutil.copytree(storage, tmp_path / "elsewhere")
    found = read_sweep("tiny", str(tmp_path / "elsewhere"))
    for record in found.records.values():
        assert record.checkpoint is not None
        assert record.checkpoint.startswith(str(tmp_path / "elsewhere"))
        assert Path(record.checkpoint).is_file()


def test_where_there_is_none(storage: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no sweep in .*; did you mean 'tiny'"):
        read_sweep("tinny", str(storage))
    with pytest.raises(ConfigError, match="there is no sweep in"):
        read_sweep(None, str(tmp_path))
    with pytest.raises(ConfigError, match="give its folder, or --storage"):
        read_sweep("tiny", str(tmp_path))


def test_damage_costs_what_it_hit(storage: Path, tmp_path: Path) -> None:
    shutil.copytree(storage / "tiny", tmp_path / "tiny")
    journal = tmp_path / "tiny" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:3], "{half\n", *lines[4:]]))
    found = read_sweep("tiny", str(tmp_path))
    assert len(found.lost) >= 1
    assert BASELINE in found.records
    journal.write_text("{half\n" + "".join(lines[1:]))
    with pytest.raises(StorageError, match="is not an event of a sweep"):
        read_sweep("tiny", str(tmp_path))
