"""A real sweep that begins with another's front, a schedule and values; resumed when the other sweep is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from raydistill.records import BASELINE, FINISHED
from raydistill.sweep.record.journal import read_journal

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]
WriteSweep = Callable[..., Path]
RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
FC1 = "per_layer.fc1.weight.final_sparsity"


def sweep(folder: Path, *arguments: str, code: int = 0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        [*RUN, "sweep", *arguments], cwd=folder, env=environment, text=True, capture_output=True, timeout=900
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_a_sweep_begins_with_what_is_known(write_sweep: WriteSweep, tmp_path: Path) -> None:
    short = (("training/epochs", 2), ("baseline/epochs", 1), ("schedule/policies", [
        {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 2, "frequency": 1}]),
        ("num_samples", 2))  # fmt: skip
    write_sweep(*short, ("name", "first"), name="first.yaml")
    sweep(tmp_path, "first.yaml")
    first = read_journal(tmp_path / "sweeps/first/journal.jsonl").records
    schedule = yaml.safe_load(Path("schedules/simplenet_agp.yaml").read_text().replace("100", "2"))
    for policy in schedule["policies"]:
        policy["starting_epoch"], policy["frequency"] = 0, 1
    (tmp_path / "agp.yaml").write_text(yaml.safe_dump(schedule))
    start = [{"sweep": "first", "top": 1}, "agp.yaml", {FC1: 0.9}]
    write_sweep(*short, ("num_samples", 3), ("warm_start", start), name="second.yaml")
    shown = sweep(tmp_path, "second.yaml", "--name", "second")
    assert "agp.yaml lies outside the search" not in shown

    history = read_journal(tmp_path / "sweeps/second/journal.jsonl")
    trials = [history.records[f"t{i:04d}"] for i in range(3)]
    assert all(trial.state == FINISHED for trial in trials)
    origin = trials[0].extra["warm_start"]
    assert str(origin).startswith("sweep first t000")
    assert trials[0].values == first[str(origin).split()[-1]].values, "bit for bit, through MLflow's text"
    assert [trial.extra["warm_start"] for trial in trials[1:]] == ["schedule agp.yaml", "warm_start[2]"]
    assert trials[2].values[FC1] == 0.9
    assert yaml.safe_load(trials[1].schedule_text)["pruners"] == schedule["pruners"]
    assert trials[1].last is not None
    assert trials[1].last.layer_sparsity["conv2.weight"] == pytest.approx(0.5), "the sweep's own leaves it dense"

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/sweeps/second/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("second").experiment_id])
    origins = {run.data.tags.get("raydistill.trial_id", ""): run.data.tags.get("warm_start") for run in runs}
    assert {trial.trial_id: trial.extra["warm_start"] for trial in trials}.items() <= origins.items()
    assert origins[BASELINE] is None

    shutil.rmtree(tmp_path / "sweeps/first")
    more = ("second.yaml", "--name", "second", "--num-samples", "4", "--resume")
    sweep(tmp_path, *more)
    again = read_journal(tmp_path / "sweeps/second/journal.jsonl").records
    assert [again[trial.trial_id].values for trial in trials] == [trial.values for trial in trials]
    assert again["t0003"].state == FINISHED
    assert "warm_start" not in again["t0003"].extra
    write_sweep(*short, ("num_samples", 3), ("warm_start", start[1:]), name="second.yaml")
    assert "second.yaml: warm_start: must be as the sweep was started" in sweep(tmp_path, *more, code=2)
