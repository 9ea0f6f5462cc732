"""Whole sweeps kept on S3: the head dies and its disk with it, a node dies, the network goes away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raydistill.records import BASELINE, ENDED, FINISHED, STOPPED
from raydistill.storage import Store, open_store
from raydistill.sweep.record.journal import History, parse_journal
from raydistill.training import read_history

pytestmark = [pytest.mark.ray, pytest.mark.slow]
WriteSweep = Callable[..., Path]
RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
ROOT = Path(__file__).parents[2]
FOUR_TRIALS = (
    ("num_samples", 4),
    ("training/epochs", 8),
    ("trial_scheduler", {"name": "asha", "grace_period": 4, "score": {"top1": 1.0}}),
    ("resources_per_trial", {"cpu": 1}),
)


class Run:
    """A driver on its own machine: its working copies are in ``folder/machine``, and nobody else's are."""

    def __init__(self, folder: Path, machine: str, *arguments: str, **environment: str) -> None:
        self.work = folder / machine
        self.output = folder / f"{machine}.out"
        settings = {**os.environ, "PYTHONPATH": str(ROOT), "RAYDISTILL_WORK_DIR": str(self.work), **environment}
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [*RUN, "sweep", *arguments], cwd=folder, env=settings, stdout=file, stderr=file, start_new_session=True
            )

    def finish(self, code: int = 0) -> str:
        self.process.wait(timeout=500)
        text = self.output.read_text()
        assert self.process.returncode == code, text
        return text

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def store(bucket: str) -> Store:
    return open_store(f"s3://{bucket}/sweeps")


@pytest.fixture
def start(tmp_path: Path, store: Store) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(machine: str, *arguments: str, **environment: str) -> Run:
        tracking = f"sqlite:///{tmp_path}/mlflow.db"
        runs.append(Run(tmp_path, machine, *arguments, "--tracking-uri", tracking, **environment))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.kill()


def journal(store: Store) -> History:
    return parse_journal(
        store.content(store.root / "tiny" / "journal.jsonl"),
        "the bucket's journal",
        store.reference(store.root / "tiny"),
    )


def wait_for_epochs(run: Run, store: Store, epochs: int) -> None:
    """Until that many epochs of trials are in the bucket's journal."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if sum(trial_id != BASELINE for trial_id, _ in journal(store).epochs) >= epochs:
            return
        assert run.process.poll() is None, run.output.read_text()
        time.sleep(0.1)
    raise TimeoutError(f"no {epochs} epochs in time: {run.output.read_text()}")


def trained(store: Store) -> dict[str, list[int]]:
    """When each epoch in the trials' checkpoints was trained; what is trained again has another time."""
    found = {}
    for name in (f"t{number:04d}" for number in range(4)):
        reference = store.reference(store.root / "tiny" / "trials" / name / "checkpoint.pt")
        if store.exists(reference):
            with store.lent(reference) as path:
                found[name] = [metrics.timestamp_ms for metrics in read_history(path)]
    return found


def assert_complete(store: Store, folder: Path, before: dict[str, list[int]]) -> None:
    """Journal, checkpoints and MLflow tell one story; what had been trained before was not trained again."""
    from mlflow import MlflowClient

    lines = store.content(store.root / "tiny" / "journal.jsonl").splitlines()
    ends = Counter(
        event["trial_id"]
        for event in map(json.loads, lines)
        if event["event"] == "trial_ended" and event["state"] in ENDED
    )
    assert ends == {f"t{i:04d}": 1 for i in range(4)}
    history, now = journal(store), trained(store)
    for trial_id, times in now.items():
        epochs = [metrics for other, metrics in history.epochs if other == trial_id]
        assert [metrics.epoch for metrics in epochs] == list(range(len(epochs)))
        # one that is stopped at a rung now may have trained beyond it before the journal lost that
        reached = len(times) if history.records[trial_id].state == FINISHED else len(epochs)
        assert [metrics.timestamp_ms for metrics in epochs] == times[:reached]
        assert times[: len(before.get(trial_id, ()))] == before.get(trial_id, [])
        assert history.records[trial_id].checkpoint == f"{store.shown}/tiny/trials/{trial_id}/checkpoint.pt"
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert Counter(run.data.tags.get("raydistill.trial_id", "") for run in runs) == dict.fromkeys(
        ["", BASELINE, *ends], 1
    )
    status = {FINISHED: "FINISHED", STOPPED: "FINISHED"}
    for run in runs:
        trial_id = run.data.tags.get("raydistill.trial_id")
        if trial_id is None:
            assert run.info.status == "FINISHED"
            continue
        assert run.info.status == status[history.records[trial_id].state]
        assert run.info.artifact_uri.startswith(f"{store.shown}/tiny/mlartifacts/")
        if trial_id != BASELINE:
            files = {file.path for file in client.list_artifacts(run.info.run_id)}
            assert files == {"checkpoint.pt", "schedule.yaml", "sparsity.csv"}
    assert client.get_registered_model("tiny").aliases


def without_its_last_epochs(store: Any) -> int:
    """Take from the bucket's journal what its mirror may lag behind; the number of lines."""
    [piece] = store.objects.names("tiny/journal")
    lines = store.objects.get(piece)[0].splitlines(keepends=True)
    kept = len(lines)
    while json.loads(lines[kept - 1])["event"] in ("epoch", "trial_ended"):
        kept -= 1
    store.objects.put(piece, b"".join(lines[:kept]))
    return len(lines) - kept


def remove(folder: Path) -> None:
    """A folder in which processes that are about to end may still be writing."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)


@pytest.mark.long  # two minutes
def test_the_head_dies_and_its_disk_with_it(
    write_sweep: WriteSweep, start: Callable[..., Run], store: Store, tmp_path: Path
) -> None:
    file = write_sweep(*FOUR_TRIALS)
    first = start("first", str(file), "--storage", store.shown)
    wait_for_epochs(first, store, 5)
    first.kill()
    remove(first.work)
    time.sleep(3.0)  # the trials' processes end with their driver
    before = trained(store)
    assert sum(map(len, before.values())) >= 5
    without_its_last_epochs(store)
    refused = start("again", str(file), "--storage", store.shown).finish(code=2)
    assert f"error: {store.shown}/tiny: holds a sweep already; add --resume" in refused
    told = start("second", str(file), "--storage", store.shown, "--resume").finish()
    assert f"checkpoints  {store.shown}/tiny/trials/*/checkpoint.pt" in told
    assert "Traceback" not in told
    assert_complete(store, tmp_path, before)
    for name in ("pareto.csv", "pareto.png", "pareto.html"):
        assert store.exists(f"{store.shown}/tiny/{name}")
    lines = len(store.content(store.root / "tiny" / "journal.jsonl").splitlines())
    start("third", str(file), "--storage", store.shown, "--resume").finish()  # nothing is trained or tested again
    assert len(store.content(store.root / "tiny" / "journal.jsonl").splitlines()) == lines + 1


@pytest.mark.cluster
def test_two_nodes_of_which_one_dies_with_the_head(
    write_sweep: WriteSweep,
    start: Callable[..., Run],
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.cluster_utils import Cluster

    file = write_sweep(*FOUR_TRIALS)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # a driver that asks for a token would not answer these nodes
    monkeypatch.setenv("RAYDISTILL_WORK_DIR", str(tmp_path / "head"))
    memory = {"object_store_memory": 200 * 1024**2}
    on_terminate = signal.getsignal(signal.SIGTERM)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory})
    try:
        nodes = {}
        for name in ("node1", "node2"):
            monkeypatch.setenv("RAYDISTILL_WORK_DIR", str(tmp_path / name))
            nodes[name] = cluster.add_node(num_cpus=1, **memory)
        first = start("first", str(file), "--storage", store.shown, "--address", cluster.address)
        wait_for_epochs(first, store, 5)
        for name in ("node1", "node2"):
            assert list((tmp_path / name).glob("*/tiny/trials/*/lock"))
            assert list((tmp_path / name).glob("*/.fetched/*/checkpoint.pt"))
        assert not list((tmp_path / "first").glob("*/tiny/trials/*"))
        first.kill()
        cluster.remove_node(nodes["node1"], allow_graceful=False)
        for name in ("first", "node1"):
            shutil.rmtree(tmp_path / name)
        before = trained(store)
        start("second", str(file), "--storage", store.shown, "--address", cluster.address, "--resume").finish()
        assert_complete(store, tmp_path, before)
        assert not (tmp_path / "node1").exists()
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, on_terminate)  # Ray had set its own


@pytest.mark.cluster
def test_the_network_goes_away_for_a_while(
    write_sweep: WriteSweep, start: Callable[..., Run], store: Store, gate: Any, tmp_path: Path
) -> None:
    run = start(
        "first",
        str(write_sweep(*FOUR_TRIALS)),
        "--storage",
        f"{store.shown}?endpoint_override=127.0.0.1:{gate.port}&scheme=http",
    )
    wait_for_epochs(run, store, 3)
    gate.close()
    before = trained(store)
    while "does not answer" not in run.output.read_text():
        assert run.process.poll() is None, run.output.read_text()
        time.sleep(0.1)
    gate.open()
    told = run.finish()
    assert "Traceback" not in told
    assert told.count("does not answer") == told.count("answers again") == 1
    assert_complete(store, tmp_path, before)


def test_what_is_wrong_is_said_before_anything_starts(
    write_sweep: WriteSweep,
    sweep_here: Callable[..., str],
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*arguments: str, **environment: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in {"RAYDISTILL_WORK_DIR": str(tmp_path / "machine"), **environment}.items():
                patch.setenv(name, value)
            return sweep_here(write_sweep(), *arguments, code=2)

    tracked = ("--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    no_bucket = refused("--storage", "s3://no-such-bucket-here/p", *tracked)
    assert no_bucket.startswith("error: --storage s3://no-such-bucket-here/p: there is no such bucket; make it")
    here = ("--storage", store.shown)
    no_key = refused(*here, *tracked, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert no_key.startswith(f"error: --storage {store.shown}: access denied, or no credentials")
    away = refused(*here, *tracked, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert away.startswith(f"error: --storage {store.shown}: does not answer for ")
    for text in (no_bucket, away):
        assert text.count("\n") == 1
    untracked = refused(*here)
    assert untracked.startswith(f"error: --tracking-uri: is needed: with --storage {store.shown} a database on this")
    named = refused(*here, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert named.startswith("error: --tracking-uri: no MLflow server answers there")  # before Ray is started
    dry = sweep_here(write_sweep(), *here, *tracked, "--dry-run")
    assert f"storage:     {store.shown}/tiny" in dry
    assert store.content(store.root / "tiny" / "journal.jsonl") == b""


@pytest.mark.cluster
def test_trials_that_train_on_workers(store: Store, start: Callable[..., Run], write_sweep: WriteSweep) -> None:
    """What a worker trains comes into the bucket by way of its trial's process, which pushes it."""
    cores = len(os.sched_getaffinity(0))
    changes = (("num_samples", 2), ("workers_per_trial", 2))
    file = str(write_sweep(*changes, ("resources_per_trial", {"cpu": cores / 2})))
    run = start("head", file, "--storage", store.shown)
    wait_for_epochs(run, store, 1)
    run.kill()
    before = trained(store)
    shutil.rmtree(run.work)  # with its disk
    start("another", file, "--storage", store.shown, "--resume").finish()
    history, now = journal(store), trained(store)
    assert {record.state for name, record in history.records.items() if name != BASELINE} == {FINISHED}
    assert [len(times) for times in now.values()] == [4, 4]
    for trial_id, times in before.items():
        assert now[trial_id][: len(times)] == times
