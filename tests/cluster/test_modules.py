"""A user's own modules: which files are sent to a cluster's nodes, and that a node without them trains with them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.cluster import modules
from raydistill.cluster.modules import named_in, runtime_env
from raydistill.errors import ConfigError
from tests.cluster.conftest import RayCluster, ended
from tests.sweep.conftest import SWEEP, changed

NET = '''
"""A network whose layers come from another module, imported late, that reads a file of its own package."""
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        from rd_layers.sizes import hidden
        self.fc1 = nn.Linear(3 * 32 * 32, hidden())
        self.fc2 = nn.Linear(hidden(), num_classes)

    def forward(self, images):
        return self.fc2(self.fc1(images.flatten(1)))
'''
SIZES = """
from pathlib import Path

def hidden():
    return int(Path(__file__).with_name("hidden.txt").read_text())
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """rd_net.py imports the package rd_layers; rd_other.py is nobody's business."""
    folder = tmp_path / "project"
    (folder / "rd_layers").mkdir(parents=True)
    (folder / "rd_net.py").write_text(NET)
    (folder / "rd_other.py").write_text("")
    (folder / "rd_layers" / "__init__.py").write_text("import torch, json\n")
    (folder / "rd_layers" / "sizes.py").write_text(SIZES)
    (folder / "rd_layers" / "hidden.txt").write_text("24")
    (folder / "rd_layers" / "__pycache__").mkdir()
    (folder / ".gitignore").write_text("*.txt\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    return folder


def sent(env: dict[str, Any] | None) -> list[str]:
    return [] if env is None else [Path(path).name for path in env["py_modules"]]


def test_every_name_in_a_file_is_found() -> None:
    said = {
        "model": {"arch": "rd_net:Net"},
        "dataset": {"name": "digits"},
        "schedule": {"pruners": {"mine": {"class": "pkg.pruners:Mine"}}},
        "warm_start": [{"schedule": {"pruners": {"a": {"class": "late.one:A.B"}}}}],
        "tracking": {"uri": "http://here:5000"},
        "constraints": ["latency_ms <= 3"],
    }
    assert named_in(said) == {"rd_net", "pkg", "late"}


def test_what_is_imported_is_sent_and_nothing_else(project: Path) -> None:
    assert sent(runtime_env(["rd_net"])) == ["rd_layers", "rd_net.py"]
    assert runtime_env(["torch", "json", "raydistill", "no_such_module"]) is None  # installed, or not there
    assert runtime_env([]) is None


def test_a_submitted_jobs_own_files_are_not_sent_again(project: Path, tmp_path: Path) -> None:
    job = json.dumps({"runtime_env": {"working_dir": "gcs://a.zip"}, "metadata": {}})
    assert runtime_env(["rd_net"], job) is None
    assert runtime_env(["rd_net"], json.dumps({"runtime_env": {"py_modules": ["gcs://b.zip"]}})) is None
    assert sent(runtime_env(["rd_net"], json.dumps({"runtime_env": {"env_vars": {}}}))) == ["rd_layers", "rd_net.py"]
    (tmp_path / "elsewhere").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "elsewhere")
        assert sent(runtime_env(["rd_net"], job)) == ["rd_layers", "rd_net.py"]


def test_gigabytes_are_not_sent(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "rd_layers" / "weights").mkdir()
    with open(project / "rd_layers" / "weights" / "a.bin", "wb") as file:
        file.truncate(modules.MOST_BYTES)  # a hole in a file
    with pytest.raises(ConfigError) as caught:
        runtime_env(["rd_net"])
    assert str(caught.value) == (
        f"{project}/rd_layers: is sent to the nodes of the cluster and may have 100 MB, it has 100 MB; "
        "move 'weights' out of it, or install the package on every node"
    )


@pytest.mark.cluster
@pytest.mark.ray
@pytest.mark.slow
def test_a_node_that_cannot_see_the_folder_trains_with_its_modules(
    project: Path, tmp_path: Path, cluster: RayCluster, raydistill: Callable[..., subprocess.Popen[str]]
) -> None:
    """Trials run on the second node only; an empty disk lies over the project's folder there."""
    said = changed(SWEEP, "model", {"arch": "rd_net:Net"})
    said = changed(said, "schedule/pruners/agp/weights", ["fc1.weight", "fc2.weight"])
    (project / "space.yaml").write_text(yaml.safe_dump({**said, "num_samples": 2}))
    cluster.head("--num-cpus=0")
    cluster.node("--num-cpus=2", before=f"mount -t tmpfs none {project}; test ! -e {project}/rd_net.py")
    command = ("sweep", "space.yaml", "--storage", tmp_path / "sweeps", "--address", cluster.address)
    out, err = ended(raydistill(*command, cwd=project))
    assert err == ""
    assert "trials: 2 finished" in out
