"""Files of torch.save are read without running any of them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from raydistill.errors import CheckpointError
from raydistill.tensor_file import look_through, read_tensors


class Ran:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('it ran')",))


def test_what_was_saved_comes_back_old_format_or_new(tmp_path: Path) -> None:
    content = {"model": {"w": torch.arange(6.0).reshape(2, 3)}, "epoch": 3, "names": ["a", None]}
    for number, new in enumerate((True, False)):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path, _use_new_zipfile_serialization=new)
        found = read_tensors(path, "")
        assert torch.equal(found["model"].pop("w"), content["model"]["w"])  # type: ignore[index]
        assert found == {"model": {}, "epoch": 3, "names": ["a", None]}
        names, strings = look_through(path)
        assert ("torch._utils", "_rebuild_tensor_v2") in names
        assert {"model", "epoch"} <= strings


def test_nothing_in_a_file_runs(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": Ran()}, path)
    with pytest.raises(CheckpointError, match=r"names '.*exec', which may run code.*; do this"):
        read_tensors(path, "do this")
    path.write_bytes(pickle.dumps(Ran()))
    with pytest.raises(CheckpointError, match=r"without running code|may run code"):
        read_tensors(path, "")


def test_a_tensor_larger_than_its_file_explains_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(1).expand(1 << 27), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="many times larger than the file"):
        read_tensors(tmp_path / "x.pt", "")


def test_a_packed_file_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(1 << 20))
    with pytest.raises(CheckpointError, match="is packed and would unpack to 1,048,576 bytes"):
        read_tensors(tmp_path / "x.pt", "")


def test_no_file_and_no_checkpoint_are_one_line_each(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"nothing of torch's")
    with pytest.raises(CheckpointError, match="is damaged, or no checkpoint"):
        read_tensors(tmp_path / "x.pt", "")
    with pytest.raises(CheckpointError, match="no such checkpoint; look there"):
        read_tensors(tmp_path / "y.pt", "look there")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_tensors(tmp_path, "")
    assert look_through(tmp_path / "x.pt") == (set(), set())
