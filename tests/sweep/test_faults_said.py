"""Full disks and memory that runs out, with the real thing: a small disk of its own, real allocations, real kills."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import soak
import soak_reader
import yaml

from tests.sweep.conftest import ONE_AT_A_TIME

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Iterator[soak.Range]:
    changes = {"resources_per_trial": ONE_AT_A_TIME}
    with soak.open_range(tmp_path_factory.mktemp("faults"), tables, changes) as opened:
        yield opened
        assert soak.left_running(opened.marks, 120.0) == []


class Disk:
    """A file system of a few MB that can be filled to its last byte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True)
        if made.returncode:
            folder.rmdir()
            pytest.skip(f"no small disk can be mounted here: {made.stderr.decode().strip()}")

    def fill(self) -> None:
        with open(self.folder / "filler", "ab", buffering=0) as file:
            for size in (1 << 16, 512, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    continue

    def free(self) -> None:
        (self.folder / "filler").unlink()

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    small = Disk(tmp_path / "small")
    yield small
    small.unmount()


def sweep_of(place: soak.Range, name: str, storage: Path, uri: str = "") -> soak.Sweep:
    sweep = soak.Sweep(place, name, 0, "none", storage, uri)
    place.marks.append(sweep.mark)
    return sweep


def wait_for(sweep: soak.Sweep, lines: int) -> None:
    while sweep.running() and sweep.lines() < lines:
        time.sleep(0.01)
    assert sweep.running(), sweep.output()


def one_error(sweep: soak.Sweep) -> str:
    assert sweep.code == 2, sweep.output()
    assert "Traceback" not in sweep.output()
    (line,) = [line for line in sweep.output().splitlines() if line.startswith("error: ")]
    return line


def assert_whole(sweep: soak.Sweep, place: soak.Range, database: Path | None = None) -> None:
    assert sweep.code == 0, sweep.output()
    where = database or sweep.folder / "mlflow.db"
    found = soak_reader.faults_of(sweep.folder, where, sweep.folder / "mlartifacts", place.reference(0))
    assert found == []


@pytest.mark.long  # test_journal, test_search_driver and test_run have it with the process's own file size limit
@pytest.mark.parametrize("what", ["journal", "trials", "everything"])
def test_a_full_disk_is_one_line_and_the_sweep_goes_on_when_it_is_freed(
    place: soak.Range, disk: Disk, tmp_path: Path, what: str
) -> None:
    """The rest of the storage lies on the other disk, through links, so that it is this writer that meets the end."""
    storage = disk.folder if what != "trials" else tmp_path
    reference = place.reference(0)
    shutil.copytree(reference.parent / "baselines", storage / "baselines")
    sweep = sweep_of(place, f"full-{what}", storage)
    elsewhere = {"journal": ["trials", "tune", "mlartifacts", "mlflow.db"], "trials": ["trials"], "everything": []}
    for name in elsewhere[what]:
        there = (tmp_path if what == "journal" else disk.folder) / f"there-{name}"
        if (sweep.folder / name).exists():
            shutil.move(sweep.folder / name, there)
        else:
            there.mkdir()
        (sweep.folder / name).symlink_to(there)
    sweep.start()
    wait_for(sweep, 8)
    disk.fill()
    sweep.finish()
    line = one_error(sweep)
    named = {"journal": "journal.jsonl", "trials": f"{disk.folder}/there-trials/t0", "everything": str(disk.folder)}
    assert named[what] in line
    assert "cannot be written (no space left on device); free some space" in line
    assert "resume with:" in sweep.output()
    disk.free()
    before = sweep.journal.read_text()
    assert before.endswith("\n")  # no half line
    sweep.start()
    sweep.finish()
    if (sweep.folder / "tune").is_symlink():
        (sweep.folder / "tune").unlink()
    assert_whole(sweep, place)
    assert sweep.journal.read_text().startswith(before)


@pytest.mark.long  # test_sink: what is said; test_server: records wait; test_damaged_run: a whole sweep
def test_mlflow_whose_disk_is_full_is_waited_for(place: soak.Range, disk: Disk, tmp_path: Path) -> None:
    shutil.copy(place.tables, disk.folder / "mlflow.db")
    place.reference(0)
    sweep = sweep_of(place, "full-mlflow", place.folder / "sweeps", f"sqlite:///{disk.folder}/mlflow.db")
    sweep.start()
    wait_for(sweep, 6)
    disk.fill()
    while sweep.running() and "its records wait" not in sweep.output():
        time.sleep(0.05)
    time.sleep(12)  # five tries take 7.5 s, then an operation that others do not share the fate of is given up
    disk.free()
    sweep.finish()
    told = " ".join(sweep.output().split())
    assert f"warning: MLflow cannot write, its records wait: {disk.folder}/mlflow.db: the disk is full; free" in told
    assert "not in MLflow" not in told
    assert "did not take" not in told
    assert_whole(sweep, place, disk.folder / "mlflow.db")


def records_of(sweep: soak.Sweep) -> tuple[dict[str, str], dict[str, str]]:
    """(state, reason by trial)."""
    states, reasons = {}, {}
    for line in sweep.journal.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "trial_ended":
            states[event["trial_id"]], reasons[event["trial_id"]] = event["state"], event["reason"]
    return states, reasons


def own_model(sweep: soak.Sweep, code: str, trials: int) -> None:
    said = yaml.safe_load(sweep.file.read_text())
    module = sweep.name.replace("-", "_")
    said |= {"num_samples": trials, "max_failures": 1, "model": {"arch": f"{module}:Net"}}
    said["schedule"]["pruners"]["agp"]["weights"] = ["fc.weight"]
    sweep.file.write_text(yaml.safe_dump(said))
    (sweep.place.folder / f"{module}.py").write_text(code)


GREEDY_MODEL = """
import os, time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, num_classes)

    def forward(self, images):
        if os.path.basename(os.getcwd()) == "t0000":
            if "RAYDISTILL_TEST_GROUP" in os.environ:
                with open(os.environ["RAYDISTILL_TEST_GROUP"] + "/cgroup.procs", "w") as group:
                    group.write(str(os.getpid()))
            held = []
            while True:  # 256 MB at a time, touched, until somebody steps in
                held.append(torch.ones(64 * 2**20))
                time.sleep(0.1)
        return self.fc(images.flatten(1))
"""


def greedy(place: soak.Range, name: str) -> str:
    """The reason why the greedy trial of two failed."""
    sweep = sweep_of(place, name, place.folder / "sweeps")
    own_model(sweep, GREEDY_MODEL, 2)
    sweep.start()
    sweep.finish()
    assert sweep.code == 0, sweep.output()
    assert "(raylet)" not in sweep.output()  # Ray's own paragraph
    states, reasons = records_of(sweep)
    assert states == {"t0000": "failed", "t0001": "finished"}, reasons
    return reasons["t0000"]


@pytest.mark.cluster  # by itself: what other processes take of the machine's memory counts too
def test_a_trial_that_rays_memory_monitor_kills(place: soak.Range, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = psutil.virtual_memory()
    if memory.available < 8 * 2**30:
        pytest.skip("needs 8 GB of free memory")
    limit = 1 - (memory.available - 3 * 2**30) / memory.total  # 3 GB above what is used now
    monkeypatch.setenv("RAY_memory_usage_threshold", f"{limit:.3f}")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    reason = greedy(place, "monitored")
    assert reason.startswith("out of memory: its process was killed, the node ran low on memory; lower batch_size")


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of 1 GB of memory (version 1 or 2 of the kernel's)."""
    root = Path("/sys/fs/cgroup")
    parent, name = (root / "memory", "memory.limit_in_bytes") if (root / "memory").is_dir() else (root, "memory.max")
    group = parent / f"raydistill-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / name).write_text(str(2**30))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group of memory can be made here ({error})")
    yield group
    group.rmdir()


@pytest.mark.long  # what is told of such a death: tests/cluster/test_last_words.py
def test_a_trial_that_the_kernel_kills(place: soak.Range, small_group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYDISTILL_TEST_GROUP", str(small_group))
    reason = greedy(place, "overcommitted")
    assert reason.startswith("out of memory: its process was killed by the kernel; lower batch_size")
