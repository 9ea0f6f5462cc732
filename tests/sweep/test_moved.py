"""A sweep that is moved, with its storage or alone, goes on where it is and leaves nothing where it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.records import FINISHED
from raydistill.sweep.record.journal import read_journal
from raydistill.tracking.moved import follow
from tests.sweep.test_warm_run import sweep


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long  # record/test_journal has references that follow, and what is below MLflow's that do
def test_a_moved_sweep_goes_on_where_it_is(
    write_sweep: Callable[..., Path], sweep_here: Callable[..., str], tmp_path: Path, spared: None
) -> None:
    from mlflow import MlflowClient

    write_sweep(("num_samples", 1))
    (tmp_path / "sweeps").rename(tmp_path / "old")
    sweep_here("space.yaml", "--cpu", "--storage", "old")
    (tmp_path / "old").rename(tmp_path / "new")
    # in a process of its own: this one has open what was in the old place
    shown = sweep(tmp_path, "space.yaml", "--cpu", "--storage", "new", "--resume", "--num-samples", "2")
    assert "trials: 2 finished" in shown
    assert "training the dense baseline" not in shown
    assert not (tmp_path / "old").exists()
    folder = tmp_path / "new" / "tiny"
    records = read_journal(folder / "journal.jsonl").records
    assert all(record.state == FINISHED for record in records.values())
    assert all(Path(str(record.checkpoint)).is_file() for record in records.values())
    assert str(tmp_path / "old") not in (folder / "journal.jsonl").read_text()
    assert str(tmp_path / "old") not in (folder / "pareto.csv").read_text()
    assert str(tmp_path / "old").encode() not in (folder / "mlflow.db").read_bytes()
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    names = {run.data.tags.get("raydistill.trial_id"): run.info.run_id for run in runs}
    for trial_id in ("t0000", "t0001"):
        assert "checkpoint.pt" in [file.path for file in client.list_artifacts(names[trial_id])]


def location(database: Path) -> str:
    with sqlite3.connect(database) as tables:
        return tables.execute("SELECT artifact_location FROM experiments WHERE name = 'x'").fetchone()[0]


@pytest.mark.parametrize(
    ("own", "old_there", "followed"),
    [(True, False, True), (True, True, True), (False, False, True), (False, True, False)],
)
def test_which_records_follow(tmp_path: Path, tables: Path, own: bool, old_there: bool, followed: bool) -> None:
    database = tmp_path / "mlflow.db"
    database.write_bytes(tables.read_bytes())
    old, new = tmp_path / "old %" / "mlartifacts", tmp_path / "new" / "mlartifacts"
    new.mkdir(parents=True)
    if old_there:
        old.mkdir(parents=True)
    with sqlite3.connect(database) as connection:
        for name, uri in (("x", old.as_uri()), ("y", "s3://bucket/mlartifacts"), ("z", f"{old.as_uri()}-other")):
            connection.execute("INSERT INTO experiments (name, artifact_location) VALUES (?, ?)", (name, uri))
    follow(database, new.as_uri(), own)
    assert location(database) == (new if followed else old).as_uri()
    with sqlite3.connect(database) as connection:
        rest = connection.execute("SELECT artifact_location FROM experiments WHERE name IN ('y', 'z')").fetchall()
    assert rest == [("s3://bucket/mlartifacts",), (f"{old.as_uri()}-other",)]


def test_an_empty_database_is_left_alone(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "mlflow.db").close()
    follow(tmp_path / "mlflow.db", "file:///x/mlartifacts", True)
