"""``raydistill doctor`` on a set-up that is healthy and on ones that are broken, each for real where that can be done.

A node's other versions and its wrong clock are put on its PYTHONPATH: two machines are not to be had here.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill import __version__
from tests.cluster.conftest import ROOT, RayCluster, ended

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.slow]
Start = Callable[..., subprocess.Popen[str]]

CLOCK = """
import time
right = time.time_ns
time.time_ns = lambda: right() + 5_000_000_000
"""


def mend_of(out: str) -> list[str]:
    assert "Traceback" not in out
    return [line.strip() for line in out.partition("to mend:\n")[2].splitlines()]


def tables_fit(out: str) -> bool:
    return all(len(line) <= 80 for line in out.partition("Ray       ")[0].splitlines())


def test_this_machine_alone(raydistill: Start, tmp_path: Path) -> None:
    out, err = ended(raydistill("doctor", "--tracking-uri", f"sqlite:///{tmp_path}/new.db"))
    assert err == ""
    assert out.splitlines()[-1] == "all is well"
    assert tables_fit(out)
    assert f"{tmp_path}/sweeps, written and read by every node" in out
    assert __version__ in out
    assert list(tmp_path.iterdir()) == []  # neither the folder nor the database was left there


def test_no_cluster_no_storage_no_mlflow(raydistill: Start, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{unused.getsockname()[1]}"
        asked = ("doctor", "--storage", "taken/sweeps", "--tracking-uri", f"http://{closed}")
        out, err = ended(raydistill(*asked, RAY_ADDRESS=closed), code=1)
    assert err == ""
    ray, storage, mlflow = mend_of(out)
    assert ray.startswith(f"RAY_ADDRESS={closed}: nothing answers there (")
    assert ray.endswith("; unset RAY_ADDRESS, or give --address local")
    assert storage.startswith(f"--storage {tmp_path}/taken/sweeps: node {socket.gethostname()} cannot write there (")
    assert mlflow.startswith(f"--tracking-uri: no MLflow server answers there, got 'http://{closed}'; start it")
    assert f"{socket.gethostname()} " in out  # this machine is shown all the same
    assert tables_fit(out)
    assert "not to be had" in out


def broken_packages(folder: Path) -> Path:
    """Another raydistill, another torch, a clock that is 5 s ahead."""
    (folder / "raydistill").mkdir(parents=True)
    (folder / "raydistill" / "__init__.py").write_text("__version__ = '0.0.9'\n")
    (folder / "torch-1.0.dist-info").mkdir()
    (folder / "torch-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    (folder / "sitecustomize.py").write_text(CLOCK)
    return folder


def test_a_cluster_with_a_broken_node(cluster: RayCluster, raydistill: Start, tmp_path: Path) -> None:
    storage = tmp_path / "sweeps"
    storage.mkdir()
    packages = broken_packages(tmp_path / "packages")
    cluster.head("--num-cpus=1")
    full = f"mount -t tmpfs -o size=512k none {storage}"
    cluster.node("--num-cpus=1", "--num-gpus=1", before=full, PYTHONPATH=f"{packages}:{ROOT}")
    out, err = ended(raydistill("doctor", "--address", cluster.address), code=1)
    assert err == ""
    assert tables_fit(out)
    lines = mend_of(out)
    rules = [
        r"has raydistill 0\.0\.9, this machine ",
        r"has 1 GPUs by Ray's count, none by nvidia-smi's, torch \(a build .*\) can use 0; mend its driver",
        r"its clock is \+(4[89]|50|51)\d\d ms off this machine's; ",
        r"cannot write there \(no space left on device\); ",
    ]
    for rule, line in zip(rules, lines, strict=True):
        assert re.search(rule, line), lines
    assert "note: node " in out
    assert " has torch 1.0, this machine " in out
    assert list(storage.iterdir()) == []

    (tmp_path / "space.yaml").write_text((ROOT / "search_spaces" / "simplenet.yaml").read_text())
    asked = ("sweep", "space.yaml", "--dataset", "digits", "--address", cluster.address)
    out, err = ended(raydistill(*asked), code=2)
    (line,) = err.splitlines()
    assert line.startswith("error: node ")
    assert f"has raydistill 0.0.9, this machine {__version__}; install raydistill {__version__} there" in line
    assert "warning: node " in out
    assert not (storage / "simplenet" / "journal.jsonl").exists()  # nothing began


def test_a_folder_that_is_not_shared(cluster: RayCluster, raydistill: Start, tmp_path: Path) -> None:
    storage = tmp_path / "sweeps"
    storage.mkdir()
    cluster.head("--num-cpus=1")
    cluster.node("--num-cpus=1", before=f"mount -t tmpfs -o size=2g none {storage}")
    out, err = ended(raydistill("doctor", "--address", cluster.address), code=1)
    assert err == ""
    (line,) = mend_of(out)
    assert line.startswith(f"--storage {storage}: nodes ")
    assert line.endswith(" do not see there what the other one wrote; name a folder that all nodes share")
    assert f"{storage}, not usable by every node" in out
