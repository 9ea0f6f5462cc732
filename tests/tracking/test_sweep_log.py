from __future__ import annotations

import dataclasses
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raydistill.errors import TrackingError
from raydistill.records import BASELINE, FAILED, FINISHED, INTERRUPTED, RUNNING, Evaluation, TrialRecord
from raydistill.search import Objective, front_rows
from raydistill.search.constraints import Constraint
from raydistill.tasks.classification.metrics import METRICS
from raydistill.tracking import SweepLog
from raydistill.tracking.sweep_log import DatasetCard

pytestmark = pytest.mark.slow

START_MS = 1_700_000_000_000
OBJECTIVES = (Objective("top1", "max"), Objective("sparsity", "max"))


def open_log(storage: Path, told: list[str] | None = None, **params: object) -> SweepLog:
    log = SweepLog(
        None, storage, "simplenet", "sweep-1", {"num_samples": 3, **params}, {"dataset": "digits"},
        report=(told if told is not None else []).append,
    )  # fmt: skip
    log.start()
    return log


def send(log: SweepLog, record: TrialRecord, *artifacts: Path) -> None:
    """What a sweep sends for one trial."""
    log.trial_started(dataclasses.replace(record, state=RUNNING, last=None, reason=""))
    for number in range(3):
        log.epoch(
            record.trial_id, dataclasses.replace(record.last, epoch=number, timestamp_ms=START_MS + 1000 * number)
        )
    log.trial_ended(record, artifacts)


def files_of(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in ("checkpoint.pt", "schedule.yaml", "sparsity.csv"):
        (folder / name).write_text(f"{folder.name} {name}")
    return [folder / "checkpoint.pt", folder / "schedule.yaml", folder / "sparsity.csv", folder / "absent.txt"]


def metric_points(uri: str, run_id: str, key: str) -> list[tuple[int, int, float]]:
    from mlflow import MlflowClient

    history = MlflowClient(tracking_uri=uri).get_metric_history(run_id, key)
    return [(m.step, m.timestamp, m.value) for m in history]


def test_a_sweep_from_start_to_end_and_sent_twice(storage: Path, runs, records) -> None:
    told: list[str] = []
    for attempt in range(2):  # the second is a new process's view: same sweep, same records
        log = open_log(storage, told)
        for record in records:
            send(log, record, *files_of(storage / record.trial_id))
        log.front(front_rows(records, OBJECTIVES), OBJECTIVES, METRICS)
        assert log.finish() == 0, attempt
    assert told == []
    by_name = runs(log.uri)
    assert set(by_name) == {"simplenet", BASELINE, "t0000", "t0001", "t0002", "t0003"}

    parent = by_name["simplenet"]
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"num_samples": "3"}
    assert parent.data.tags["dataset"] == "digits"
    assert {name: run.info.status for name, run in by_name.items()} == {
        "simplenet": "FINISHED", BASELINE: "FINISHED", "t0000": "FINISHED", "t0001": "FINISHED", "t0002": "FINISHED",
        "t0003": "FAILED",
    }  # fmt: skip
    for name, run in by_name.items():
        if name != "simplenet":
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert run.info.start_time == START_MS
            assert run.info.end_time == START_MS + 9000

    run = by_name["t0000"]
    assert run.data.params == {"pruners.conv1_pruner.final_sparsity": "0.5", "policies.0.frequency": "2"}
    assert run.data.metrics == {
        "top1": 0.85, "top5": 1.0, "loss": 1.25, "train_loss": 1.5, "learning_rate": 0.1, "sparsity": 0.5,
        "epoch by epoch/top1": 0.85, "epoch by epoch/sparsity": 0.5,
    }  # fmt: skip
    wanted = {"dataset": "digits", "arch": "simplenet_cifar", "seed": "7", "state": "finished", "trial_id": "t0000"}
    wanted |= {"end_reason": "ran all its epochs", "pareto": "true", "pareto_rank": "0"}
    assert wanted.items() <= run.data.tags.items()
    assert metric_points(log.uri, run.info.run_id, "top1") == [(i, START_MS + 1000 * i, 0.85) for i in range(3)]
    assert by_name["t0001"].data.tags["pareto"] == "false"
    assert by_name["t0001"].data.tags["pareto_rank"] == "1"
    assert by_name["t0002"].data.tags["pareto"] == "false"
    assert by_name["t0002"].data.tags["end_reason"].startswith("stopped at epoch 1")
    assert by_name[BASELINE].data.tags["pareto"] == "true"

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=log.uri)
    names = [item.path for item in client.list_artifacts(run.info.run_id)]
    assert names == ["checkpoint.pt", "schedule.yaml", "sparsity.csv"]
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == [
        "pareto.csv", "pareto.html", "pareto.png",
    ]  # fmt: skip
    stored = client.download_artifacts(run.info.run_id, "schedule.yaml", str(storage))
    assert Path(stored).read_text() == "t0000 schedule.yaml"
    assert (storage / "mlartifacts").is_dir()
    assert not (storage / "mlflow_pending").exists()


def test_identical_points_are_one_also_where_they_are_nan(storage: Path, runs, epoch, trial) -> None:
    for _ in range(2):
        log = open_log(storage)
        log.trial_started(trial("t0000", state=RUNNING))
        log.epoch("t0000", epoch(0, metrics={"top1": 0.5, "loss": math.nan}, train_loss=math.inf))
        log.epoch("t0000", epoch(1))
        log.finish()
    run_id = runs(log.uri)["t0000"].info.run_id
    assert len(metric_points(log.uri, run_id, "loss")) == 2
    assert math.isnan(metric_points(log.uri, run_id, "loss")[0][2])
    assert len(metric_points(log.uri, run_id, "train_loss")) == 2


def test_a_train_loss_that_nobody_said_is_no_point(storage: Path, runs, epoch, trial) -> None:
    log = open_log(storage)
    log.trial_started(trial("t0000", state=RUNNING))
    log.epoch("t0000", epoch(0, train_loss=None))
    log.finish()
    run = runs(log.uri)["t0000"]
    assert "train_loss" not in run.data.metrics
    assert run.data.metrics["top1"] == 0.5


def test_interrupted_then_resumed(storage: Path, runs, epoch, trial) -> None:
    log = open_log(storage)
    log.trial_started(trial("t0000", state=RUNNING))
    log.epoch("t0000", epoch(0))
    log.trial_ended(trial("t0000", state=INTERRUPTED, last=epoch(0), reason="interrupted"))
    assert log.finish(INTERRUPTED) == 0
    first = runs(log.uri)
    assert {name: run.info.status for name, run in first.items()} == {"simplenet": "KILLED", "t0000": "KILLED"}
    assert first["simplenet"].data.tags["state"] == "interrupted"

    log = open_log(storage, num_samples=5)  # more samples than at first
    log.trial_started(trial("t0000", state=RUNNING))
    assert log.flush(20) == 0
    resumed = runs(log.uri)
    assert {name: run.info.status for name, run in resumed.items()} == {"simplenet": "RUNNING", "t0000": "RUNNING"}
    for number in (1, 2):
        log.epoch("t0000", epoch(number))
    log.trial_ended(trial("t0000"))
    log.front(front_rows([trial("t0000")], OBJECTIVES), OBJECTIVES, METRICS)
    assert log.finish() == 0
    assert log.errors == []
    last = runs(log.uri)
    assert {name: run.info.run_id for name, run in last.items()} == {n: r.info.run_id for n, r in first.items()}
    assert {run.info.status for run in last.values()} == {"FINISHED"}
    assert last["t0000"].data.tags["pareto"] == "true"
    assert last["simplenet"].data.params["num_samples"] == "3"
    assert last["simplenet"].data.tags["resumed.num_samples"] == "5"
    assert [p[0] for p in metric_points(log.uri, last["t0000"].info.run_id, "top1")] == [0, 1, 2]


def test_a_baseline_that_was_not_trained_in_this_sweep_has_its_figures(storage: Path, runs, trial) -> None:
    log = open_log(storage)
    log.trial_ended(trial(BASELINE, 0.9, 0.0))
    log.finish()
    run = runs(log.uri)[BASELINE]
    assert (run.data.metrics["top1"], run.data.metrics["sparsity"]) == (0.9, 0.0)
    assert run.info.status == "FINISHED"


def test_two_sweeps_in_one_store_stay_apart(storage: Path, trial) -> None:
    from mlflow import MlflowClient

    for sweep_id in ("one", "two"):
        log = SweepLog(None, storage, "simplenet", sweep_id)
        log.start()
        log.trial_started(trial("t0000"))
        assert log.finish() == 0
    client = MlflowClient(tracking_uri=log.uri)
    found = client.search_runs([client.get_experiment_by_name("simplenet").experiment_id])
    assert len(found) == 4
    parents = {run.data.tags.get("mlflow.parentRunId") for run in found}
    assert len(parents) == 3  # None and one for each sweep


def test_test_figures_are_logged_once_for_members(storage: Path, runs, trial, evaluation) -> None:
    log = open_log(storage)
    send(log, trial("t0000", 0.8, 0.5))
    member = trial("t0000", 0.8, 0.5, test=evaluation(0.75))
    for _ in range(2):
        log.front(front_rows([member], OBJECTIVES), OBJECTIVES, METRICS)
    log.finish()
    run = runs(log.uri)["t0000"]
    assert run.data.metrics["test_top1"] == 0.75
    assert run.data.metrics["test_loss"] == 1.5
    assert len(metric_points(log.uri, run.info.run_id, "test_top1")) == 1


def test_a_trial_that_leaves_the_front_loses_its_tag(storage: Path, runs, trial) -> None:
    log = open_log(storage)
    early, late = trial("t0000", 0.8, 0.5), trial("t0001", 0.9, 0.6)
    send(log, early)
    log.front(front_rows([early], OBJECTIVES), OBJECTIVES, METRICS)
    assert log.flush(20) == 0
    assert runs(log.uri)["t0000"].data.tags["pareto"] == "true"
    send(log, late)
    log.front(front_rows([early, late], OBJECTIVES), OBJECTIVES, METRICS)
    log.finish()
    assert runs(log.uri)["t0000"].data.tags["pareto"] == "false"
    assert runs(log.uri)["t0000"].data.tags["pareto_rank"] == "1"


def test_many_values_and_odd_names_go_beyond_one_batch(storage: Path, runs, epoch, trial) -> None:
    weights = {f"layer{i}.größe/weight:{i}": i / 1300 for i in range(1300)}
    values = {f"per_layer.l{i}.weight.final_sparsity": i / 250 for i in range(250)}
    record = trial("t0000", values=values, last=epoch(2, footprint=weights), reason="x" * 9000)
    log = open_log(storage)
    log.trial_started(record)
    log.trial_ended(record)
    assert log.finish() == 0
    assert log.errors == []
    run = runs(log.uri)["t0000"]
    assert len(run.data.params) == 250
    assert sum(name.startswith("layer") for name in run.data.metrics) == 1300
    assert len(run.data.tags["end_reason"]) == 8000


def test_a_file_that_vanished_is_reported_and_the_run_still_ends(storage: Path, runs, trial) -> None:
    told: list[str] = []
    log = open_log(storage, told)
    paths = files_of(storage / "t0000")
    log.trial_started(trial("t0000"))
    assert log.flush(20) == 0
    log._writer._changed.acquire()  # nothing is delivered while the file goes
    log.trial_ended(trial("t0000"), paths[:2])
    paths[0].unlink()
    log._writer._changed.release()
    assert log.finish() == 0
    assert len(told) == 1
    assert "checkpoint.pt" in told[0]
    assert runs(log.uri)["t0000"].info.status == "FINISHED"


def test_files_that_are_not_on_this_machine_are_borrowed(storage: Path, tmp_path: Path, trial) -> None:
    import contextlib

    from mlflow import MlflowClient

    open_now: list[str] = []

    @contextlib.contextmanager
    def lent(name: str):
        path = tmp_path / "lent" / name.rpartition("/")[2]
        path.parent.mkdir(exist_ok=True)
        if not name.endswith("schedule.yaml"):
            path.write_text(name)
        open_now.append(name)
        yield path
        open_now.remove(name)

    away = (tmp_path / "elsewhere").as_uri()
    log = SweepLog(f"sqlite:///{storage}/m.db", storage, "s", "id", lent=lent, artifacts=away)
    log.start()
    log.trial_ended(trial("t0000"), ["s3://b/t0000/checkpoint.pt", "s3://b/t0000/schedule.yaml"])
    assert log.finish() == 0
    assert log.errors == []
    assert open_now == []
    client = MlflowClient(log.uri)
    [run] = client.search_runs(["1"], "tags.`raydistill.trial_id` = 't0000'")
    assert run.info.artifact_uri.startswith(away)
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["checkpoint.pt"]


def test_the_users_own_mlflow_is_left_alone(storage: Path, tmp_path: Path, tables: Path, monkeypatch, trial) -> None:
    import shutil

    import mlflow

    monkeypatch.chdir(tmp_path)
    shutil.copy(tables, tmp_path / "own.db")
    before = dict(os.environ)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/own.db")
    own_env = dict(os.environ)
    try:
        with mlflow.start_run() as own:
            log = open_log(storage)
            send(log, trial("t0000"))
            assert log.finish() == 0
            assert mlflow.active_run().info.run_id == own.info.run_id
            assert mlflow.get_tracking_uri() == f"sqlite:///{tmp_path}/own.db"
        assert dict(os.environ) == own_env
        assert len(mlflow.search_runs()) == 1
    finally:
        mlflow.set_tracking_uri(None)
        os.environ.clear()
        os.environ.update(before)
        logging.getLogger("mlflow").setLevel(logging.INFO)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_deleted_experiment_is_one_line_at_the_start(storage: Path, trial) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{storage}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    client.delete_experiment(client.create_experiment("gone"))
    other = storage / "other"
    other.mkdir()
    with pytest.raises(TrackingError) as caught:
        SweepLog(uri, other, "gone", "s").start()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("--tracking-uri: the store cannot be used (experiment 'gone' was deleted")
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ

    told: list[str] = []
    log = SweepLog(None, storage, "gone", "s", report=told.append)  # embedded: found out in the background
    log.start()
    log.trial_started(trial("t0000"))
    assert log.finish(timeout_s=20) > 0
    assert len(told) == 1


def test_start_returns_at_once_and_makes_the_tables_itself_without_a_word(tmp_path: Path) -> None:
    """In a process of its own: nothing may scroll past the user, and the front is drawn even so."""
    code = f"""
from pathlib import Path
from raydistill.records import EpochMetrics, TrialRecord
from raydistill.search import Objective, front_rows
from raydistill.tracking import SweepLog
from raydistill.tasks.classification.metrics import METRICS
objectives = (Objective("top1", "max"), Objective("sparsity", "max"))
last = EpochMetrics(0, 1, 1.5, {{"top1": 0.5, "top5": 0.7, "loss": 1.2}}, 0.1, 0.3, {{}}, 9.0, 1.0, 1700000000000)
record = TrialRecord("t0000", {{}}, "finished", "a", "d", 0, last=last)
log = SweepLog(None, Path({str(tmp_path)!r}), "simplenet", "s")
log.start()
log.trial_started(record); log.epoch("t0000", last); log.trial_ended(record)
log.front(front_rows([record], objectives), objectives, METRICS)
assert log.flush(0) > 0, 'it waited until all was delivered'
assert log.finish() == 0, log.errors
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    there = {path.name for path in tmp_path.iterdir()}
    assert there == {"mlflow.db", "mlartifacts", "pareto.csv", "pareto.png", "pareto.html"}


def test_the_front_is_in_the_storage_even_if_mlflow_is_not_there(storage: Path, trial) -> None:
    (storage / "mlflow.db").unlink()
    log = open_log(storage)
    import sqlite3

    holder = sqlite3.connect(storage / "mlflow.db")
    holder.execute("BEGIN EXCLUSIVE")  # every write waits
    log.front(front_rows([trial("t0000")], OBJECTIVES), OBJECTIVES, METRICS)
    assert log.finish(FINISHED, timeout_s=0.2) > 0
    assert "t0000" in (storage / "pareto.csv").read_text()
    holder.close()


@pytest.mark.parametrize(
    ("state", "status"), [(FINISHED, "FINISHED"), (FAILED, "FAILED"), (INTERRUPTED, "KILLED"), (RUNNING, "KILLED")]
)
def test_a_run_by_itself_is_its_own_parent(storage: Path, runs, epoch, state: str, status: str) -> None:
    """What has no trials: its epochs, what it came to, its files; and how it ended."""
    log = SweepLog(
        None, storage, "runs", "one", {"lr": 0.1}, dataset=DatasetCard("digits" * 100, "a" * 50), run_name="my run",
        pending=storage / "waiting",
    )  # fmt: skip
    (storage / "waiting" / "mlflow_pending").mkdir(parents=True)
    (storage / "checkpoint.pt").write_text("weights")
    (storage / "folder").mkdir()
    (storage / "folder" / "inside.txt").write_text("x")
    log.start()
    assert log.front_page == "" or "experiments" in log.front_page
    log.run_epoch(epoch(0, metrics={"top1": 0.5}))
    last = dataclasses.replace(epoch(1, metrics={"top1": 0.6}), footprint={"macs": 7.0}, timestamp_ms=START_MS + 5)
    log.run_epoch(last)
    files = [storage / "checkpoint.pt", storage / "folder", storage / "absent.txt"]
    log.run_result(Evaluation("test", {"top1": 0.55}, 10), last, files)
    assert log.flush(60.0) == 0
    assert log.errors == []
    assert not log.broken
    assert (log.registered, log.aliases) == ("", {})
    assert log.finish(state) == 0
    assert not (storage / "waiting" / "mlflow_pending").exists()
    ((name, run),) = runs(log.uri, "runs").items()
    assert (name, run.info.status) == ("my run", status)
    assert run.data.tags["state"] == state
    assert (run.data.metrics["top1"], run.data.metrics["test_top1"], run.data.metrics["macs"]) == (0.6, 0.55, 7.0)
    assert metric_points(log.uri, run.info.run_id, "macs") == [(1, START_MS + 5, 7.0)]
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == (("digits" * 100)[:500], "a" * 36)
    assert [(tag.key, tag.value) for tag in data.tags] == [("mlflow.data.context", "training")]
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=log.uri)
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["checkpoint.pt", "folder"]
    assert [item.path for item in client.list_artifacts(run.info.run_id, "folder")] == ["folder/inside.txt"]


def test_the_fronts_figures_are_the_parents_and_what_breaks_a_constraint_is_marked(
    storage: Path, runs, records
) -> None:
    log = open_log(storage)
    for record in records:
        send(log, record)
    rows = front_rows(records, OBJECTIVES, (Constraint("sparsity", ">=", 0.6),))
    log.front(rows, OBJECTIVES, METRICS, {"front_size": 1.0})
    assert log.flush(60.0) == 0
    assert log.front_page.startswith(("http", "/", "#")) or "experiments" in log.front_page
    assert log.finish() == 0
    by_name = runs(log.uri)
    points = metric_points(log.uri, by_name["simplenet"].info.run_id, "front_size")
    assert [(step, value) for step, _, value in points] == [(len(rows), 1.0)]
    assert points[0][1] > START_MS
    assert {row.record.trial_id: by_name[row.record.trial_id].data.tags["feasible"] for row in rows} == {
        row.record.trial_id: "false" if row.violations else "true" for row in rows
    }
    assert any(row.violations for row in rows)
    assert not (storage / "mlflow_pending").exists()


def test_nothing_can_be_asked_before_the_start(storage: Path) -> None:
    with pytest.raises(RuntimeError, match="has not been called"):
        _ = SweepLog(None, storage, "x", "y").uri
