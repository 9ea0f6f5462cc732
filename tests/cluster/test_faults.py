"""What a user sees when the driver, the head or a node of a cluster dies in mid-sweep, and that --resume works."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from raydistill.cluster.connect import put
from raydistill.errors import ResourceError
from tests.cluster.conftest import RayCluster, ended, free_port, skip_without_namespaces

Start = Callable[..., subprocess.Popen[str]]

MODEL = '''
"""A small network that takes its time, so that it can be hit."""
import time
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, stride=8)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, images):
        if self.training:
            time.sleep(0.2)
        return self.fc(self.conv(images).relu().flatten(1))
'''
TRIALS, EPOCHS = 3, 6
SWEEP = f"""
version: 1
name: hit
model: {{arch: "rd_slow:Net"}}
dataset: {{name: digits}}
training: {{epochs: {EPOCHS}, batch_size: 512, lr: 0.02, precision: fp32}}
baseline: {{epochs: 1, lr: 0.05}}
schedule:
  version: 1
  pruners:
    agp: {{class: AutomatedGradualPruner, initial_sparsity: 0.05, final_sparsity: 0.5, weights: [fc.weight]}}
  policies: [{{pruner: {{instance_name: agp}}, starting_epoch: 0, ending_epoch: 5, frequency: 1}}]
search: {{per_layer: {{weights: [fc.weight], final_sparsity: {{uniform: [0.3, 0.9]}}}}}}
trial_scheduler: {{name: none}}
num_samples: {TRIALS}
"""
HUNG_S = 400
"""A bound that says that something hangs; it is no expectation."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rd_slow.py").write_text(MODEL)
    (tmp_path / "space.yaml").write_text(SWEEP)
    return tmp_path / "sweeps" / "hit"


def events(folder: Path) -> list[dict[str, Any]]:
    path = folder / "journal.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def in_mid_sweep(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until some trial has trained two epochs."""
    deadline = time.monotonic() + HUNG_S
    while time.monotonic() < deadline:
        epochs = Counter(event["trial_id"] for event in events(folder) if event["event"] == "epoch")
        if any(count >= 2 for trial, count in epochs.items() if trial != "baseline"):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise TimeoutError("no trial trained two epochs")


def all_ended_once(folder: Path) -> None:
    """Every trial finished once, each of its epochs was recorded once."""
    told = events(folder)
    finished = [event["trial_id"] for event in told if event["event"] == "trial_ended" and event["state"] == "finished"]
    assert sorted(finished) == [f"t{number:04d}" for number in range(TRIALS)]
    for trial in finished:
        epochs = [e["metrics"]["epoch"] for e in told if e["event"] == "epoch" and e["trial_id"] == trial]
        assert epochs == list(range(EPOCHS)), trial


def trial_processes(among: Iterable[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in among:
        with contextlib.suppress(psutil.Error):
            if any(word.startswith("ray::ImplicitFunc.train") for word in process.cmdline()):
                found.append(process)
    return found


@pytest.mark.cluster
@pytest.mark.ray
@pytest.mark.slow
def test_the_driver_is_lost_while_the_cluster_lives(cluster: RayCluster, raydistill: Start, folder: Path) -> None:
    cluster.head("--num-cpus=2")
    command = ("sweep", "space.yaml", "--address", cluster.address)
    driver = raydistill(*command)
    in_mid_sweep(folder, driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    out, err = ended(raydistill(*command, "--resume"))
    assert err == ""
    assert "Pareto front" in out
    all_ended_once(folder)


@pytest.mark.cluster
@pytest.mark.ray
@pytest.mark.slow
def test_a_node_dies_and_its_trials_go_on_elsewhere(cluster: RayCluster, raydistill: Start, folder: Path) -> None:
    cluster.head("--num-cpus=0")
    cluster.node("--num-cpus=1")
    doomed = cluster.node("--num-cpus=1")
    sweep = raydistill("sweep", "space.yaml", "--address", cluster.address)
    in_mid_sweep(folder, sweep)
    cluster.kill(doomed)
    ended(sweep)
    all_ended_once(folder)


@pytest.mark.cluster
@pytest.mark.ray
@pytest.mark.slow
def test_the_head_is_lost_and_started_again(cluster: RayCluster, raydistill: Start, folder: Path) -> None:
    others = set(trial_processes(psutil.process_iter()))
    head = cluster.head("--num-cpus=2", port=free_port())
    command = ("sweep", "space.yaml", "--address", cluster.address)
    sweep = raydistill(*command)
    in_mid_sweep(folder, sweep)
    cluster.kill(head)
    out, err = ended(sweep, code=2)
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1, err
    assert "--resume" in out
    assert not set(trial_processes(psutil.process_iter())) - others
    cluster.head("--num-cpus=2", port=free_port())
    ended(raydistill("sweep", "space.yaml", "--address", cluster.address, "--resume"))
    all_ended_once(folder)


@pytest.mark.cluster
@pytest.mark.ray
@pytest.mark.slow
def test_a_node_has_a_full_disk(cluster: RayCluster, raydistill: Start, folder: Path) -> None:
    """It is refused as it can start nothing; in mid-sweep the sweep ends once a trial needs a new process there."""
    skip_without_namespaces()
    cluster.head("--num-cpus=0")
    disk = f"mount -t tmpfs -o size=200m tmpfs {cluster.folder}"
    node = cluster.node("--num-cpus=1", before=disk, BAD_RUNTIME_ENV_CACHE_TTL_SECONDS="0")  # Ray remembers
    fill, free = f"cat /dev/zero > {cluster.folder}/fill", f"rm {cluster.folder}/fill"
    command = ("sweep", "space.yaml", "--address", cluster.address)

    cluster.inside(node, fill)
    _, err = ended(raydistill(*command), code=2)
    assert "cannot run anything (OSError: [Errno 28] No space left on device)" in err
    assert len(err.strip().splitlines()) == 1, err
    assert not events(folder)

    cluster.inside(node, free)
    sweep = raydistill(*command)
    in_mid_sweep(folder, sweep)
    cluster.inside(node, fill)
    (trial,) = trial_processes(psutil.Process(node.pid).children(recursive=True))
    trial.kill()
    out, err = ended(sweep, code=2)
    assert "error: trial t0000: node " in err
    assert "cannot run anything" in err
    assert len(err.strip().splitlines()) <= 2, err  # a warning of its second start
    assert "--resume" in out

    cluster.inside(node, free)
    ended(raydistill(*command, "--resume"))
    all_ended_once(folder)


@pytest.mark.parametrize("kind", [ray.exceptions.OutOfDiskError, ray.exceptions.ObjectStoreFullError])
def test_an_object_store_that_is_full(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own error is put in: a disk that is full for Ray alone is not to be had here."""

    def full(value: object) -> None:
        raise kind("Failed to put object")

    monkeypatch.setattr(ray, "put", full)
    with pytest.raises(ResourceError, match="no room for the dataset") as caught:
        put(b"", 10 * 2**20)
    assert "10 MB" in str(caught.value)
