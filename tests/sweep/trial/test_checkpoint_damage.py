"""Damaged checkpoints of trials. Whole sweeps that meet them are in test_run.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from raydistill.errors import CheckpointError, Fault, StorageError
from raydistill.records import EpochMetrics
from raydistill.storage import open_store
from raydistill.sweep.trial.checkpoint_damage import SET_ASIDE, history_or_damage, is_of, lost
from raydistill.training.checkpoint import write_checkpoint

PARTS = {"run": {"arch": "simplenet_cifar", "model_args": {}}, "num_classes": 10, "model": {}}

EPOCH = EpochMetrics(0, 4, 1.5, {"top1": 0.5, "top5": 0.9, "loss": 1.0}, 0.1, 0.3, {}, 1e3, 0.5, 1_000)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {**PARTS, "history": [EPOCH.to_json()]})
    return path


def test_a_whole_one_is_read(checkpoint: Path) -> None:
    assert history_or_damage(checkpoint) == ([replace(EPOCH, checkpoint=str(checkpoint))], "")
    assert checkpoint.exists()


@pytest.mark.parametrize("left", [0, 100, -100], ids=["nothing", "the beginning", "all but the end"])
def test_a_damaged_one_is_set_aside(checkpoint: Path, left: int) -> None:
    content = checkpoint.read_bytes()[:left]
    checkpoint.write_bytes(content)
    aside = checkpoint.with_name(SET_ASIDE)
    assert history_or_damage(checkpoint) == ([], f"its checkpoint is damaged, it is kept as {aside}")
    assert not checkpoint.exists()
    assert aside.read_bytes() == content


def test_one_that_the_disk_does_not_give_stays(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        history_or_damage(tmp_path / "checkpoint.pt")
    assert (tmp_path / "checkpoint.pt").exists()


def test_whose_checkpoint_an_error_is_of(checkpoint: Path, tmp_path: Path) -> None:
    own = Fault(str(checkpoint), "is damaged")
    (tmp_path / "link").symlink_to(tmp_path)
    assert is_of(CheckpointError(own), checkpoint)
    assert is_of(CheckpointError(own), tmp_path / "link" / "checkpoint.pt")
    assert not is_of(CheckpointError(Fault("baselines/checkpoint.pt", "is damaged")), checkpoint)
    assert not is_of(CheckpointError(own, Fault("baselines/checkpoint.pt", "is damaged")), checkpoint)
    assert not is_of(StorageError(own), checkpoint)


@pytest.mark.parametrize("left", [0, 1000, -1], ids=["nothing", "the beginning", "all but the last byte"])
def test_a_look_notices_what_was_cut_off(checkpoint: Path, left: int, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert lost(str(checkpoint), store) == ""
    content = checkpoint.read_bytes()
    assert len(content) > 1000
    checkpoint.write_bytes(content[:left])
    assert lost(str(checkpoint), store) == f"{checkpoint}: is damaged"
    assert checkpoint.exists()
    checkpoint.unlink()
    assert lost(str(checkpoint), store) == f"{checkpoint}: does not exist any more"


def test_a_look_at_what_the_disk_does_not_give(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").mkdir()
    with pytest.raises(StorageError, match="cannot be read"):
        lost(str(tmp_path / "checkpoint.pt"), open_store(tmp_path))
