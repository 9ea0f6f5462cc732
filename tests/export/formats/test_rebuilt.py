"""The network is built again from what its factory is called: a user's own only where the user names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from raydistill.errors import CheckpointError
from raydistill.export import asked_for, deployed, load, write_artifact
from raydistill.export.formats.rebuilt import CONFIG
from tests.export.conftest import keep

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = deployed(keep(tmp_path / "checkpoint.pt", "simplenet_cifar"))
    write_artifact(network, asked_for(["bitmask"], "formats"), tmp_path / "out", source={}, latency=False)
    return tmp_path / "out"


def test_a_factory_that_the_file_names_is_not_called(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = json.loads((folder / CONFIG).read_text())
    said["run"]["arch"] = "os:system"
    (folder / CONFIG).write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match="called only where you name it yourself, got 'os:system'"):
        load(folder)
    assert capfd.readouterr().out == ""
    assert load(folder, arch="raydistill.models.simplenet:simplenet_cifar")((torch.zeros(1, 3, 32, 32),)).shape == (
        1,
        10,
    )


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"run": 3}', "[" * 100_000, '{"run": {"arch": "x"}}'])
def test_a_damaged_description_is_one_line(folder: Path, content: str) -> None:
    (folder / CONFIG).write_text(content)
    with pytest.raises(CheckpointError, match="does not say how the network is built") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
