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
from raydistill.training.checkpoint import read_checkpoint, read_history, rng_state, set_rng_state, write_checkpoint
from raydistill.training.distiller_checkpoint import read_any

PARTS = {"run": {"arch": "simplenet_cifar", "model_args": {}}, "num_classes": 10, "model": {}}


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
    with pytest.raises(CheckpointError, match="which may run code"):
        read_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "trapped").exists()


def test_a_truncated_checkpoint_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {**PARTS, "model": {"w": torch.ones(1000)}})
    assert read_checkpoint(path)["model"]["w"].sum() == 1000
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "other.pt")


@pytest.mark.slow
def test_damage_of_any_kind_is_one_line(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Cut off, bytes changed, or something else altogether. (A changed weight may still be a checkpoint.)"""
    path = tmp_path / "checkpoint.pt"
    rng = random.Random(0)
    write_checkpoint(path, {**PARTS, "model": {"w": torch.ones(20)}, "history": []})
    whole = path.read_bytes()
    cut = [whole[:length] for length in range(0, len(whole), 40)]
    changed = [bytearray(whole) for _ in range(150)]
    for content in changed:
        for _ in range(rng.choice([1, 3, 30])):
            content[rng.randrange(len(content))] = rng.randrange(256)
    noise = [start + rng.randbytes(rng.randrange(1, 300)) for start in (b"", b"\x80\x02") for _ in range(80)]
    said: list[str] = []
    for content in (*cut, *changed, *noise, bytes(len(whole))):
        path.write_bytes(content)
        for read in (read_checkpoint, read_history, read_any):
            try:
                read(path)
            except CheckpointError as error:
                said.append(str(error))
    assert all(line.startswith(f"{path}: is ") and "\n" not in line for line in said)
    assert len(said) > 3 * (len(cut) + len(noise))
    assert not recwarn.list


def test_a_file_that_the_disk_does_not_give_may_be_whole(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot be read \(Is a directory\)"):
        read_checkpoint(tmp_path / "checkpoint.pt")


def test_a_history_that_is_none(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.pt", {**PARTS, "history": [{"epoch": 1}]})
    with pytest.raises(CheckpointError, match="is damaged: the history of its epochs"):
        read_history(tmp_path / "c.pt")


def test_random_states_survive_a_round_trip(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.pt", {**PARTS, "rng": rng_state()})
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
