"""The folder appears whole or not at all; what cannot be had is left out, and said."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.errors import ConfigError, StorageError
from raydistill.export import Deployed, asked_for, deployed, export, read_manifest, write_artifact
from raydistill.export.formats.checkpoint import Checkpoint
from tests.export.conftest import keep


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keep(tmp_path_factory.mktemp("small") / "checkpoint.pt", "simplenet_cifar")


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> Deployed:
    return deployed(checkpoint)


def write(network: Deployed, folder: Path, *forms: Any, **said: Any) -> Any:
    return write_artifact(network, forms or asked_for(["checkpoint"], "f"), folder, source={"trial": "t1"}, **said)


@pytest.mark.slow
def test_the_manifest_says_what_lies_there(network: Deployed, checkpoint: Path, tmp_path: Path) -> None:
    dense = deployed(keep(tmp_path / "dense.pt", "simplenet_cifar", share=0.0), inputs=network.inputs)
    told: list[str] = []
    figures = {"test": {"top1": 0.5, "samples": 8}}
    folder = tmp_path / "a" / "b"
    manifest = write(network, folder, dense=dense, figures=figures, latency=True, threads=1, tell=told.append)
    assert read_manifest(folder) == read_manifest(folder)
    said = json.loads((folder / "manifest.json").read_text())
    assert (said["arch"], said["source"], said["figures"]) == ("simplenet_cifar", {"trial": "t1"}, figures)
    assert said["inputs"] == [{"name": "images", "shape": [None, 3, 32, 32], "dtype": "float32"}]
    assert said["output"] == {"name": "logits", "shape": [None, 10], "dtype": "float32"}
    assert said["network"]["size_bytes"] < said["dense"]["size_bytes"] == 248_024
    for file in said["files"]:
        content = (folder / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert file["gzip_bytes"] < len(content)
    assert {path.name for path in folder.iterdir()} == {file["name"] for file in said["files"]} | {"manifest.json"}
    assert [row["runtime"] for row in said["latency"]] == ["torch"] * len(said["latency"])
    assert {row["batch"] for row in said["latency"]} >= {1}
    for row in said["latency"]:
        assert set(row["ms"]) == {"dense", "this"}
        assert row["speedup"] == row["ms"]["dense"]["median"] / row["ms"]["this"]["median"]
        assert row["ms"]["this"]["lower"] <= row["ms"]["this"]["median"] <= row["ms"]["this"]["upper"]
    assert told == ["writing checkpoint", "measuring latency"]
    assert manifest.agreement["checkpoint"] < 1e-5


class Failing(Checkpoint):
    NAME = "failing"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, network: Deployed, folder: Path) -> tuple[str, ...]:
        (folder / "half").write_text("half of it")
        raise self.error


class Other(Checkpoint):
    NAME = "other"

    def runner(self, *arguments: Any, **said: Any) -> Any:
        run = super().runner(*arguments, **said)
        return lambda inputs: run(inputs) + 0.01 * torch.arange(10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (Failing(ValueError("no")), "failing: cannot be written or run (ValueError: no)"),
        (Failing(ConfigError("it has an odd layer")), "it has an odd layer"),
        (Other(), "other: its outputs are not the masked network's: outputs differ by 9.0e-02 at most, more than "),
    ],
)
def test_one_that_fails_is_left_out_and_the_others_are_whole(
    network: Deployed, tmp_path: Path, bad: Any, says: str
) -> None:
    manifest = write(network, tmp_path / "out", bad, Checkpoint(), latency=False)
    assert list(manifest.left_out) == [bad.NAME]
    assert manifest.left_out[bad.NAME].startswith(says)
    assert manifest.formats == ("checkpoint",)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"checkpoint.pt", "manifest.json", "reference.safetensors"}
    assert read_manifest(tmp_path / "out").left_out == manifest.left_out


@pytest.mark.slow
def test_where_all_fail_nothing_is_there(network: Deployed, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="odd layer"):
        write(network, tmp_path / "out", Failing(ConfigError("it has an odd layer")))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(network: Deployed, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        write(network, tmp_path / "out", Failing(OSError(errno.ENOSPC, "No space left on device")), Checkpoint())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_is_there_already_stays(network: Deployed, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(network, tmp_path / "out", latency=False)  # an empty folder is as good as none
    with pytest.raises(ConfigError, match="is there already; choose another folder"):
        write(network, tmp_path / "out", latency=False)
    (tmp_path / "file").write_text("a")
    with pytest.raises(ConfigError, match="is there already"):
        write(network, tmp_path / "file", latency=False)


@pytest.mark.slow
def test_what_a_killed_process_left_is_cleared(network: Deployed, tmp_path: Path) -> None:
    for name in (f".out.{2**22 + 7}-abcd.tmp", f".out.{os.getpid()}-abcd.tmp", ".other.1-a.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_text("half")
    write(network, tmp_path / "out", latency=False)
    assert {path.name for path in tmp_path.iterdir()} == {"out", f".out.{os.getpid()}-abcd.tmp", ".other.1-a.tmp"}


@pytest.mark.slow
def test_from_python(checkpoint: Path, tmp_path: Path) -> None:
    manifest = export(checkpoint, tmp_path / "out", ["checkpoint", "bitmask"], latency=False)
    assert manifest.formats == ("checkpoint", "bitmask")
    assert manifest.source == {"checkpoint": str(checkpoint)}
