"""``raydistill verify``: what was changed, what is not there, what may not be called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.export import asked_for, deployed, write_artifact
from tests.cli.conftest import Ended
from tests.export.conftest import keep

Command = Callable[..., Ended]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = deployed(keep(tmp_path / "checkpoint.pt", "simplenet_cifar"))
    write_artifact(network, asked_for(["checkpoint"], "f"), tmp_path / "out", source={}, latency=False)
    return tmp_path / "out"


def test_a_changed_file_ends_with_code_1(raydistill: Command, folder: Path) -> None:
    (folder / "checkpoint.pt").write_bytes(b"other")
    ended = raydistill("verify", str(folder), "--split", "none")
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert lines[0] == f"{folder}/checkpoint.pt: is not the file that was written, its hash differs"
    assert lines[-1] == "not as its manifest says"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--split", "tset"), "error: --split: no such split, got 'tset'; did you mean 'test'?"),
        (("--format", "onnx"), "was written without it, got 'onnx'; it has checkpoint"),
        (("--task", "nosuch"), "unknown task, got 'nosuch'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    raydistill: Command, folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    ended = raydistill("verify", str(folder), *arguments)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert says in ended.err


@pytest.mark.parametrize(("key", "option"), [("name", "--task"), ("dataset", "--dataset")])
def test_code_that_a_manifest_names_is_not_called(raydistill: Command, folder: Path, key: str, option: str) -> None:
    said = json.loads((folder / "manifest.json").read_text())
    said["task"] |= {"name": "classification", key: {"name": "os:system"} if key == "dataset" else "os:system"}
    (folder / "manifest.json").write_text(json.dumps(said))
    ended = raydistill("verify", str(folder))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"called only where you name it yourself, got 'os:system'; {option} os:system, or --split none" in ended.err
