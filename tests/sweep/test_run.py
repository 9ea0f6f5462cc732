"""Whole sweeps through Ray and MLflow on digits: to the end, killed, interrupted, resumed, with a trial that dies."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from raydistill.records import (
    BASELINE,
    ENDED,
    FAILED,
    FINISHED,
    INTERRUPTED,
    PAUSED,
    STOPPED,
    EpochMetrics,
    TrialRecord,
)
from raydistill.sweep.record.journal import History, read_journal
from raydistill.training import load_model, read_history
from tests.cli.conftest import Ended
from tests.sweep.conftest import ONE_AT_A_TIME

pytestmark = [pytest.mark.ray, pytest.mark.slow]
WriteSweep = Callable[..., Path]
SweepHere = Callable[..., str]
RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
ROOT = Path(__file__).parents[2]
FIVE_TRIALS = (
    ("num_samples", 5),
    ("training/epochs", 8),
    ("trial_scheduler", {"name": "asha", "grace_period": 4, "score": {"top1": 1.0}}),
    ("resources_per_trial", {"cpu": 1}),
)
ONE_BY_ONE = (("num_samples", 3), ("resources_per_trial", ONE_AT_A_TIME))

_STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """A failed test must not leave its sweep behind; Ray goes with its driver."""
    yield
    for process in _STARTED:
        if process.poll() is None:
            process.kill()
            process.communicate()
    _STARTED.clear()


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*RUN, "sweep", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # signals of a test reach the driver alone
    )
    _STARTED.append(process)
    return process


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=900)  # of a hanging one: a busy machine needs minutes
    assert process.returncode == code, f"{out}\n{err}"
    return out, err


def wait_for_epochs(process: subprocess.Popen[str], journal: Path, epochs: int) -> History:
    """Until the trials have trained that many epochs between them."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        history = read_journal(journal)
        if sum(trial_id != BASELINE for trial_id, _ in history.epochs) >= epochs:
            return history
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise TimeoutError(f"no {epochs} epochs in time")


def mlflow_runs(folder: Path, name: str) -> dict[str, Any]:
    """The sweep's child runs by trial id; the parent's key is ""."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    found = Counter(run.data.tags.get("raydistill.trial_id", "") for run in runs)
    assert max(found.values()) == 1, found  # nobody ended twice
    return {run.data.tags.get("raydistill.trial_id", ""): run for run in runs}


def top1_history(folder: Path, run: Any) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    history = MlflowClient(f"sqlite:///{folder}/mlflow.db").get_metric_history(run.info.run_id, "top1")
    return sorted((metric.step, metric.value) for metric in history)


def epochs_of(history: History, trial_id: str) -> list[EpochMetrics]:
    return [metrics for other, metrics in history.epochs if other == trial_id]


def assert_complete(folder: Path, name: str, trials: int, damaged: Collection[str] = ()) -> History:
    """Journal, checkpoints and MLflow tell one story, in which no epoch was trained twice.

    damaged: trials whose checkpoint was spoilt; they may have been trained anew, or failed in the end.
    """
    history = read_journal(folder / "journal.jsonl")
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    ends = Counter(e["trial_id"] for e in events if e["event"] == "trial_ended" and e["state"] in ENDED)
    assert {trial_id: 1 if trial_id in damaged else count for trial_id, count in ends.items()} == {
        f"t{i:04d}": 1 for i in range(trials)
    }
    runs = mlflow_runs(folder, name)
    assert set(runs) == {"", BASELINE, *ends}
    status = {FINISHED: "FINISHED", STOPPED: "FINISHED", FAILED: "FAILED"}
    for trial_id, record in history.records.items():
        epochs = epochs_of(history, trial_id)
        assert [metrics.epoch for metrics in epochs] == list(range(len(epochs)))
        assert top1_history(folder, runs[trial_id]) == [(metrics.epoch, metrics.metrics["top1"]) for metrics in epochs]
        assert runs[trial_id].info.status == status[record.state]
        assert record.checkpoint is not None
        if trial_id in damaged:
            continue
        trained = read_history(record.checkpoint)  # the time of each epoch: trained again, it would be another
        assert [metrics.timestamp_ms for metrics in trained] == [metrics.timestamp_ms for metrics in epochs]
    for trial_id in ends:
        assert runs[trial_id].data.tags["mlflow.parentRunId"] == runs[""].info.run_id
        assert runs[trial_id].data.tags["pareto"] in ("true", "false")
    assert runs[""].info.status == "FINISHED"
    return history


def front_of(records: dict[str, TrialRecord]) -> set[str]:
    """Non-dominated finished trials and baseline, by the definition."""
    points = {
        trial_id: (record.last.metrics["top1"], record.last.sparsity)
        for trial_id, record in records.items()
        if record.state == FINISHED and record.last is not None
    }
    return {
        name
        for name, (top1, sparsity) in points.items()
        if not any(t >= top1 and s >= sparsity and (t, s) != (top1, sparsity) for t, s in points.values())
    }


def kill_a_trial(process: subprocess.Popen[str]) -> None:
    below = psutil.Process(process.pid).children(recursive=True)
    trials = [child for child in below if "ImplicitFunc" in " ".join(child.cmdline())]  # Tune's name for them
    trials[0].kill()


def test_a_sweep_from_the_command_to_a_model_that_predicts(
    write_sweep: WriteSweep, sweep_here: SweepHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One trial's process is killed on the way: it goes on from its checkpoint."""
    file = write_sweep(*FIVE_TRIALS)
    process = start(tmp_path, str(file))
    wait_for_epochs(process, tmp_path / "sweeps" / "tiny" / "journal.jsonl", 4)
    kill_a_trial(process)
    out, err = finish(process)
    assert err == ""
    assert "starts again from its last checkpoint: its process died" in out
    told = [line for line in out.splitlines() if "stopped" not in line and "starts again" not in line]
    assert max(map(len, told)) <= 160
    folder = tmp_path / "sweeps" / "tiny"
    history = assert_complete(folder, "tiny", 5)
    front = front_of(history.records)
    tested = {trial_id for trial_id, record in history.records.items() if record.test is not None}
    assert tested == front | {BASELINE}
    runs = mlflow_runs(folder, "tiny")
    assert {name for name, run in runs.items() if run.data.tags.get("pareto") == "true"} == front
    for trial_id in front:
        assert f"{trial_id} " in out
    for trial in ("t0000", "t0004"):
        record = history.records[trial]
        assert record.last is not None
        if record.state == FINISHED:
            assert record.last.sparsity == pytest.approx(record.planned_sparsity, abs=2e-3)
        assert {key: float(value) for key, value in runs[trial].data.params.items()} == pytest.approx(record.values)
    assert all(record.test.samples == 359 for record in history.records.values() if record.test is not None)
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    import numpy as np

    model = mlflow.pyfunc.load_model("models:/tiny@pareto-knee")
    assert model.predict({"image": np.zeros((5, 32, 32, 3), dtype=np.uint8)}).shape == (5, 10)

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sweep_here(file, code=2).startswith(f"error: {folder}: holds a sweep already; add --resume")
    before = (folder / "journal.jsonl").read_text()
    assert "Pareto front" in sweep_here(file, "--resume")  # all is done: nothing is trained or tested again
    assert (folder / "journal.jsonl").read_text().removeprefix(before).count("\n") == 1

    lost = sorted(front - {BASELINE})[0]
    (folder / "trials" / lost / "checkpoint.pt").write_bytes(b"")
    out = sweep_here(file, "--resume", "--num-samples", "6")
    spoilt = folder / "trials" / lost / "checkpoint.pt"
    assert f"warning: trial {lost} is trained again, with its values and its seed: {spoilt}: is damaged" in out
    history = assert_complete(folder, "tiny", 6, damaged={lost})
    assert history.records[lost].state == FINISHED
    assert all(history.records[trial_id].test is not None for trial_id in front_of(history.records))
    assert len(list((tmp_path / "sweeps" / "baselines").iterdir())) == 1


KEPT = "promotion and evolution"
"""What `.ci/run` has time for."""

METHODS = {
    "asha": {},
    "promotion and evolution": {
        "trial_scheduler": {"name": "moasha", "mode": "promote", "grace_period": 2},
        "searcher": {"name": "evolution", "startup": 3},
    },
}


@pytest.mark.usefixtures("spared")
@pytest.mark.parametrize(
    "methods",
    [pytest.param(said, id=name, marks=() if name == KEPT else pytest.mark.long) for name, said in METHODS.items()],
)
def test_killed_and_resumed(
    write_sweep: WriteSweep, sweep_here: SweepHere, tmp_path: Path, methods: dict[str, Any]
) -> None:
    file = write_sweep(*FIVE_TRIALS, *methods.items())
    journal = tmp_path / "sweeps" / "tiny" / "journal.jsonl"
    process = start(tmp_path, str(file))
    wait_for_epochs(process, journal, 11)
    process.kill()
    process.communicate()
    before = read_journal(journal)
    assert "Pareto front" in sweep_here(file, "--resume")
    after = assert_complete(journal.parent, "tiny", 5)
    assert not [record for record in after.records.values() if record.state == PAUSED]
    assert after.epochs[: len(before.epochs)] == before.epochs
    assert {key: record.values for key, record in before.records.items()}.items() <= {
        key: record.values for key, record in after.records.items()
    }.items()


FILTERS = (
    ("schedule/pruners/agp/class", "L1RankedStructureParameterPruner_AGP"),
    ("schedule/pruners/agp/group_type", "Filters"),
    ("schedule/pruners/agp/weights", ["conv1.weight", "conv2.weight"]),
    ("search/per_layer", {"weights": ["conv*.weight"], "final_sparsity": {"uniform": [0.2, 0.8]}}),
    ("objectives", {"top1": "max", "macs": "min", "latency_ms": "min"}),
)


def assert_filters_are_counted(folder: Path, out: str) -> None:
    """What each trial costs, by hand, and the front of it."""
    history = read_journal(folder / "journal.jsonl")
    runs = mlflow_runs(folder, "tiny")
    points = {}
    for trial_id, record in history.records.items():
        assert record.last is not None
        conv1, conv2 = (
            int((weight.flatten(1).abs().sum(1) > 0).sum())
            for name, weight in load_model(str(record.checkpoint)).named_parameters()
            if name in ("conv1.weight", "conv2.weight")
        )
        assert (conv1 == 6 and conv2 == 16) == (trial_id == BASELINE)
        # 5x5 kernels on 28x28 and 10x10 places, 25 places a filter into fc1, fc2, fc3
        macs = 28 * 28 * 75 * conv1 + 100 * 25 * conv1 * conv2 + 25 * conv2 * 120 + 120 * 84 + 84 * 10
        figures = record.last.footprint
        assert figures["macs"] == runs[trial_id].data.metrics["macs"] == macs
        for name in ("latency_ms", "latency_iqr_ms", "latency_busy"):
            assert figures[name] == runs[trial_id].data.metrics[name]
        assert figures["latency_ms"] > 0
        points[trial_id] = (-record.last.metrics["top1"], macs, figures["latency_ms"])
    front = {
        name
        for name, point in points.items()
        if not any(o != point and all(a <= b for a, b in zip(o, point, strict=True)) for o in points.values())
    }
    assert {name for name, run in runs.items() if run.data.tags.get("pareto") == "true"} == front
    assert all(trial_id in out for trial_id in front)


@pytest.mark.usefixtures("spared")
@pytest.mark.long  # test_signals has a signal to a sweep, to a run and while Ray starts
def test_control_c_ends_cleanly_and_says_how_to_resume(
    write_sweep: WriteSweep, sweep_here: SweepHere, tmp_path: Path
) -> None:
    """A sweep over filters, for the multiplications and the time that each trial needs."""
    file = write_sweep(*FIVE_TRIALS, *ONE_BY_ONE, *FILTERS, ("trial_scheduler", {"name": "none"}))
    folder = tmp_path / "sweeps" / "tiny"
    process = start(tmp_path, str(file))
    wait_for_epochs(process, folder / "journal.jsonl", 3)
    process.send_signal(signal.SIGINT)
    out, err = finish(process, code=130)
    assert "Traceback" not in out + err
    assert out.splitlines()[-1].strip() == f"raydistill sweep {file} --resume"
    history = read_journal(folder / "journal.jsonl")
    states = {record.state for trial_id, record in history.records.items() if trial_id != BASELINE}
    assert INTERRUPTED in states
    assert "running" not in states
    runs = mlflow_runs(folder, "tiny")
    assert runs[""].info.status == "KILLED"
    assert all(
        runs[trial_id].info.status == "KILLED" for trial_id, r in history.records.items() if r.state == INTERRUPTED
    )

    spoilt = next(r.trial_id for r in history.records.values() if r.state == INTERRUPTED and r.last is not None)
    checkpoint = folder / "trials" / spoilt / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    out = sweep_here(file, "--resume")
    assert f"warning: trial {spoilt} starts anew from the baseline: its checkpoint is damaged, it is kept as " in out
    after = assert_complete(folder, "tiny", 3, damaged={spoilt})
    assert after.records[spoilt].state in (FINISHED, STOPPED)
    assert len(read_history(checkpoint)) == len(epochs_of(after, spoilt))  # trained from its first epoch on
    assert re.search(r"baseline .* [\d.]+ ± [\d.e-]+\*? ", out), "a latency has its spread"
    assert_filters_are_counted(folder, out)


OWN_MODEL = '''
"""A user's model that misbehaves in each way there is: it looks at the trial's working folder."""
import ctypes, os, signal
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 8, stride=8)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, images):
        trial = os.path.basename(os.getcwd())
        if trial == "t0000":
            raise RuntimeError("of my own making")
        if trial == "t0001":
            os._exit(1)
        if trial == "t0003":
            ctypes.string_at(0)
        if trial == "t0004":
            torch.empty(10**15)  # torch's own allocator, on the CPU
        if trial == "t0005":
            bytearray(10**16)  # Python's
        if trial == "t0006":
            raise RuntimeError("CUDA error: out of memory")  # as a library says it on a GPU
        if trial == "t0007":
            os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does, with this signal
        out = self.fc(self.conv(images).flatten(1))
        return out * float("nan") if trial == "t0002" else out
'''


@pytest.mark.usefixtures("spared")
def test_what_goes_wrong_in_a_trial_ends_that_trial_alone(
    write_sweep: WriteSweep, sweep_here: SweepHere, tmp_path: Path
) -> None:
    (tmp_path / "own_model.py").write_text(OWN_MODEL)
    file = write_sweep(
        ("model/arch", "own_model:Net"),
        ("schedule/pruners/agp/weights", ["conv.weight", "fc.weight"]),
        ("search/per_layer/weights", ["*.weight"]),
        ("num_samples", 10),
    )
    assert "Traceback" not in sweep_here(file)
    folder = tmp_path / "sweeps" / "tiny"
    records = read_journal(folder / "journal.jsonl").records
    states = {trial_id: record.state for trial_id, record in records.items()}
    expected = [FAILED] * 8 + [FINISHED] * 2
    assert states == {BASELINE: FINISHED, **{f"t{i:04d}": state for i, state in enumerate(expected)}}
    error_file = folder / "trials" / "t0000" / "error.txt"
    assert records["t0000"].reason == f"RuntimeError: of my own making (traceback in {error_file})"
    assert "own_model.py" in error_file.read_text()
    own, lines = tmp_path / "own_model.py", OWN_MODEL.splitlines()
    for trial_id, code, how in (
        ("t0001", "            os._exit(1)", "ended itself by os._exit(1)"),
        ("t0003", "            ctypes.string_at(0)", "crashed (Segmentation fault)"),
    ):
        line = lines.index(code) + 1
        reason = records[trial_id].reason
        assert reason.startswith(f"its process {how} in {own}, line {line}, in forward; "), reason
        assert "memory" not in reason
    way_out = "the training loss (minibatch 0) must be finite, got nan; lower lr"
    assert records["t0002"].reason.startswith(f"epoch 0: {way_out}")
    way_out = "lower batch_size, or raise resources_per_trial"
    for trial_id in ("t0004", "t0005", "t0006"):
        assert records[trial_id].reason.startswith(f"epoch 0: out of memory with batch_size 128; {way_out}")
    killed = "its process died without a word: killed from outside (SIGKILL; dmesg tells"
    assert records["t0007"].reason.startswith(killed)
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    retried = [event["trial_id"] for event in events if event["event"] == "trial_retried"]
    assert sorted(retried) == ["t0001", "t0003", "t0007"]
    runs = mlflow_runs(folder, "tiny")
    assert [runs[f"t{i:04d}"].info.status for i in range(10)] == ["FAILED"] * 8 + ["FINISHED"] * 2
    assert runs["t0002"].data.tags["end_reason"] == records["t0002"].reason


FULL_DISK_MODEL = '''
"""A user's model whose trial t0001 meets a disk that takes no more: the process's own file size limit."""
import os, resource
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc1 = nn.Linear(3 * 32 * 32, num_classes)

    def forward(self, images):
        if os.path.basename(os.getcwd()) == "t0001" and not os.path.exists("../../freed"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return self.fc1(images.flatten(1))
'''


@pytest.mark.usefixtures("spared")
@pytest.mark.long  # test_search_driver, record/test_journal and tests/test_files.py have full disks without Ray
def test_a_full_disk_ends_the_sweep_with_one_line_and_it_can_go_on(
    write_sweep: WriteSweep, sweep_here: SweepHere, raydistill: Callable[..., Ended], tmp_path: Path
) -> None:
    (tmp_path / "own_model.py").write_text(FULL_DISK_MODEL)
    file = write_sweep(
        ("model/arch", "own_model:Net"),
        ("schedule/pruners/agp/weights", ["fc1.weight"]),
        ("search/per_layer/weights", ["*.weight"]),
    )
    folder = tmp_path / "sweeps" / "tiny"
    ended = raydistill("sweep", file)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith(
        f"error: {folder}/trials/t0001/checkpoint.pt: cannot be written (file too large); free some"
    )
    assert not list((folder / "trials" / "t0001").glob("*.tmp"))
    assert not (folder / "trials" / "t0001" / "checkpoint.pt").exists()
    assert ended.out.splitlines()[-1].strip() == f"raydistill sweep {file} --resume"
    assert read_journal(folder / "journal.jsonl").records["t0001"].state == INTERRUPTED
    (folder / "freed").write_text("")
    sweep_here(file, "--resume")
    assert_complete(folder, "tiny", 3)


@pytest.mark.usefixtures("spared", "sweep_here")
def test_no_tracking_server(write_sweep: WriteSweep, raydistill: Callable[..., Ended], tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
        ended = raydistill("sweep", write_sweep(), "--tracking-uri", uri)
    assert ended.code == 2
    assert ended.err.startswith("error: --tracking-uri: ")
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "sweeps" / "tiny" / "journal.jsonl").exists()  # nothing started: the name is free
