from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raydistill.errors import CheckpointError
from raydistill.export.manifest import File, Manifest, Port, read_manifest

MANIFEST = Manifest(
    arch="simplenet_cifar", model_args={}, source={"trial": "t1"}, task={"name": "classification"},
    inputs=(Port("images", (None, 3, 32, 32), "float32"),), output=Port("logits", (None, 10), "float32"),
    preprocessing={"mean": [0.5]}, classes=("cat",), figures={"test": {"top1": 0.5}}, network={"sparsity": 0.5},
    dense={"sparsity": 0.0}, changes=("none",), files=(File("model.onnx", "onnx", 10, 5, "ab"),),
    agreement={"onnx": 1e-6}, largest_output=3.0, left_out={"pt2": "why"},
)  # fmt: skip


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    found = read_manifest(tmp_path)
    assert found == Manifest(**{**vars(MANIFEST), "latency": []})
    assert (found.formats, found.file_names) == (("onnx",), {"model.onnx"})


def test_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no manifest\.json; name a folder"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.update(format=2),
        lambda said: said.pop("inputs"),
        lambda said: said.update(inputs=[]),
        lambda said: said.update(unknown=1),
        lambda said: said["files"][0].update(name="../../etc/passwd"),
        lambda said: said.update(agreement={"onnx": "small"}),
        lambda said: said.update(arch=3),
    ],
)
def test_a_damaged_one_is_one_line(tmp_path: Path, change: Callable[[Any], object]) -> None:
    MANIFEST.write(tmp_path)
    said = json.loads((tmp_path / "manifest.json").read_text())
    change(said)
    (tmp_path / "manifest.json").write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match=r"manifest\.json: cannot be read") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_what_is_no_json_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_manifest(tmp_path)
