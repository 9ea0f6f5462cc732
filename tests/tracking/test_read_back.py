"""What `SweepLog` wrote into a real store, read back; and stores that cannot be read."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from raydistill.errors import TrackingError
from raydistill.records import FINISHED, INTERRUPTED, STOPPED, TrialRecord
from raydistill.search import Objective, front_rows
from raydistill.tasks.classification.metrics import METRICS
from raydistill.tracking import SweepLog, embedded_uri, ranked_trials
from tests.tracking.conftest import make_trial
from tests.tracking.test_server import Server

OBJECTIVES = (Objective("top1", "max"), Objective("sparsity", "max"))
WHERE = "space.yaml: warm_start[0]"


def write(
    storage: Path, records: Sequence[TrialRecord], sweep_id: str = "s1", state: str = FINISHED, uri: str | None = None
) -> str:
    log = SweepLog(uri, storage, "simplenet", sweep_id)
    log.start()
    for record in records:
        log.trial_started(record)
        log.trial_ended(record)
    log.front(front_rows(records, OBJECTIVES), OBJECTIVES, METRICS)
    assert log.finish(state) == 0
    return log.uri


@pytest.mark.slow
def test_ranked_trials_come_back_without_the_baseline_and_what_did_not_finish(storage: Path, records) -> None:
    warm = dataclasses.replace(records[1], extra={"warm_start": "schedule agp.yaml"})
    uri = write(storage, [records[0], warm, *records[2:]])
    before = dict(os.environ)
    found = ranked_trials(uri, "simplenet", WHERE)
    assert dict(os.environ) == before
    assert (found.name, found.state) == ("simplenet", "finished")
    assert [(t.trial_id, t.rank, t.sparsity, t.origin) for t in found.trials] == [
        ("t0000", 0, 0.5, "schedule agp.yaml"),
        ("t0001", 1, 0.4, ""),
    ]
    assert found.trials[0].params == {"pruners.conv1_pruner.final_sparsity": "0.5", "policies.0.frequency": "2"}


@pytest.mark.slow
def test_of_one_name_the_latest_that_finished_is_taken(storage: Path) -> None:
    write(storage, [make_trial("t0000", 0.6, 0.1)], "first")
    uri = write(storage, [make_trial("t0000", 0.6, 0.2)], "second")
    assert [t.sparsity for t in ranked_trials(uri, "simplenet", WHERE).trials] == [0.2]
    write(storage, [make_trial("t0000", 0.6, 0.3)], "third", INTERRUPTED)
    assert [t.sparsity for t in ranked_trials(uri, "simplenet", WHERE).trials] == [0.2]
    write(storage, [make_trial("t0000", 0.6, 0.4, STOPPED)], "fourth")
    assert [t.sparsity for t in ranked_trials(uri, "simplenet", WHERE).trials] == [0.2]


@pytest.mark.slow
def test_an_interrupted_sweep_has_the_front_it_had(storage: Path) -> None:
    uri = write(storage, [make_trial("t0000", 0.6, 0.3)], state=INTERRUPTED)
    assert ranked_trials(uri, "simplenet", WHERE).state == "interrupted"


def fault(uri: str, name: str = "simplenet") -> str:
    with pytest.raises(TrackingError) as caught:
        ranked_trials(uri, name, WHERE)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(WHERE)
    return text


@pytest.mark.slow
def test_no_such_sweep_and_one_without_a_front(storage: Path) -> None:
    uri = write(storage, [make_trial("t0000", 0.6, 0.4, STOPPED)])
    text = fault(uri, "simplnet")
    assert ".sweep: no such sweep in sqlite:///" in text
    assert "got 'simplnet'; did you mean 'simplenet'?" in text
    assert "has no front in sqlite:///" in fault(uri)


@pytest.mark.slow
def test_an_experiment_that_is_no_sweep(storage: Path) -> None:
    from mlflow import MlflowClient

    uri = embedded_uri(storage)
    client = MlflowClient(tracking_uri=uri)
    client.create_run(client.create_experiment("mine"))
    assert "that raydistill did not write" in fault(uri, "mine")


def test_stores_that_cannot_be_read_and_nothing_is_made_there(tmp_path: Path) -> None:
    assert ".tracking_uri: no such database" in fault(f"sqlite:///{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "text.db").write_text("this is no database, however long it may be, and it never was one")
    assert ".tracking_uri: cannot be read (file is not a database)" in fault(f"sqlite:///{tmp_path}/text.db")
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE mine (x)")
    before = (tmp_path / "other.db").read_bytes()
    assert ".tracking_uri: is not a database of MLflow's" in fault(f"sqlite:///{tmp_path}/other.db")
    assert (tmp_path / "other.db").read_bytes() == before
    assert ".tracking_uri: no MLflow server answers there" in fault("http://127.0.0.1:9")
    assert ".tracking_uri: nothing answers there" in fault("postgresql://127.0.0.1:9/x")
    assert ".tracking_uri: not a tracking URI" in fault("ftp://x")


@pytest.mark.slow
def test_from_a_server_in_several_pages(tmp_path: Path, tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydistill.tracking.read_back._PAGE", 3)
    server = Server(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(tables.read_bytes())
    server.start()
    try:
        trials = [make_trial(f"t{i:04d}", 0.9 - i / 10, i / 10) for i in range(8)]
        write(tmp_path, trials, uri=server.uri)
        found = ranked_trials(server.uri, "simplenet", WHERE)
    finally:
        server.kill()
    assert [trial.trial_id for trial in found.trials] == [f"t{i:04d}" for i in range(8)]
    assert "no MLflow server answers there" in fault(server.uri)
