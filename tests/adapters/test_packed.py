"""A file or a folder goes into a checkpoint and comes back as it was; nothing is written outside."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from raydistill.adapters.packed import packed, unpacked
from raydistill.errors import CheckpointError


def test_a_file_and_a_folder_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(range(256)))
    (folder / "inner/b.txt").write_text("b")
    back = unpacked(packed(folder), tmp_path / "back")
    assert back == tmp_path / "back"
    assert (back / "a.bin").read_bytes() == bytes(range(256))
    assert (back / "inner/b.txt").read_text() == "b"
    one = unpacked(packed(folder / "a.bin"), tmp_path / "one")
    assert (one.name, one.read_bytes()) == ("a.bin", bytes(range(256)))


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside"])
def test_a_place_outside_is_refused(name: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "x")
    content = torch.from_numpy(np.frombuffer(buffer.getvalue(), np.uint8).copy())
    with pytest.raises(
        CheckpointError, match=r"cannot be made of what the checkpoint holds \(it names a place outside\)"
    ):
        unpacked(content, tmp_path / "inside")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("content", [torch.zeros(9, dtype=torch.uint8), "text", None])
def test_what_is_no_such_thing_is_one_line(content: torch.Tensor, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be made of what the checkpoint holds"):
        unpacked(content, tmp_path / "inside")
