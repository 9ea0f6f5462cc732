from __future__ import annotations

import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from raydistill.errors import CheckpointError, StorageError
from raydistill.files import write_atomically
from raydistill.training.checkpoint import read_checkpoint, rng_state, set_rng_state, write_checkpoint


class Trap:
    def __reduce__(self):
        return os.system, ("touch trapped",)


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps(Trap()), pickle.dumps({"format": 1})])
def test_no_file_runs_code_or_ends_in_a_traceback(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trapped").exists()


def test_a_pickle_inside_a_torch_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "model": Trap()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="without running code"):
        read_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "trapped").exists()


def test_a_truncated_checkpoint_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {"model": {"w": torch.ones(1000)}})
    assert read_checkpoint(path)["model"]["w"].sum() == 1000
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "other.pt")


def test_random_states_survive_a_round_trip(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.pt", {"model": {}, "rng": rng_state()})
    expected = (torch.rand(3), np.random.rand(3), random.random())
    set_rng_state(read_checkpoint(tmp_path / "c.pt")["rng"])
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
    assert random.random() == expected[2]


def test_a_write_that_fails_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match=r"file.txt: cannot be written \(no space left on device\)"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "deeper", "text")
