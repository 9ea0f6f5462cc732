"""A whole sweep of a task of one's own, segmentation: stopped early, its trials and its driver killed, resumed."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.tasks import Loading
from raydistill.training import fit, read_checkpoint
from tests.tasks.segmentation import Segmentation, pictures

RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
WEIGHTS = ["down.0.weight", "up.weight", "last.0.weight"]
SWEEP: Mapping[str, Any] = {
    "version": 1,
    "name": "segments",
    "model": {"arch": "tests.tasks.segmentation:unet"},
    "task": {"name": "tests.tasks.segmentation:Segmentation", "args": {"pictures_of_train": 400}},
    "training": {
        "epochs": 8, "batch_size": 8, "precision": "fp32", "deterministic": True,
        "optimizer": {"name": "AdamW", "lr": 0.003},
    },
    "baseline": {"epochs": 4},
    "schedule": {
        "pruners": {
            "agp": {
                "class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.5, "weights": WEIGHTS,
            }
        },
        "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1}],
    },
    "search": {
        "training.optimizer.lr": {"loguniform": [0.001, 0.01]},
        "per_layer": [{"weights": WEIGHTS, "final_sparsity": {"uniform": [0.3, 0.98]}}],
    },
    "objectives": {"miou": "max", "sparsity": "max"},
    "constraints": ["miou_drop <= 0.8"],
    "searcher": {"name": "sobol"},
    "trial_scheduler": {"name": "moasha", "grace_period": 4},
    "resources_per_trial": {"cpu": 1},
    "num_samples": 5,
    "max_failures": 3,
}  # fmt: skip


class Untrained(torch.nn.Module):
    """Says background everywhere."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(images), 3, *images.shape[2:])
        logits[:, 0] = 1.0
        return logits


def test_its_metric_is_that_of_a_count_by_hand() -> None:
    task, loading = Segmentation(8), Loading(torch.device("cpu"), 7)
    found = task.evaluate(Untrained(), task.feed("validation", loading), loading)
    background = float((pictures(24, 1)[1] == 0).float().mean())
    assert found["accuracy"] == pytest.approx(background)
    assert found["miou"] == pytest.approx(background / 3)  # all pixels are said to be background; two classes have none


def written(folder: Path) -> Path:
    file = folder / "segments.yaml"
    file.write_text(yaml.safe_dump(dict(SWEEP), sort_keys=False))
    return file


def events_in(journal: Path) -> list[dict[str, Any]]:
    """Whole lines only: the last one may be on its way."""
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    return [json.loads(line) for line in lines]


def kill_the_trial_that_trains(folder: Path, killed: set[str]) -> None:
    """With SIGKILL, from outside, a trial that has trained an epoch and is not at its last; each one once."""
    events = events_in(folder / "journal.jsonl")
    ended = {event["trial_id"] for event in events if event["event"] == "trial_ended"}
    for event in events:
        if event["event"] != "epoch" or event["trial_id"] in killed | ended or event["metrics"]["epoch"] > 5:
            continue
        lock = folder / "trials" / event["trial_id"] / "lock"
        pid = re.match(r"process (\d+) ", lock.read_text()) if lock.exists() else None
        if pid is not None:
            process = Path("/proc") / pid[1] / "cmdline"
            if process.exists() and process.read_bytes().startswith(b"ray::"):
                os.kill(int(pid[1]), signal.SIGKILL)
                killed.add(event["trial_id"])


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_killed_trials_and_a_killed_driver_lose_nothing(tmp_path: Path) -> None:
    file, folder = written(tmp_path), tmp_path / "sweeps/segments"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [*RUN, "sweep", str(file), "--cpu"]
    with (tmp_path / "first.log").open("w") as log:
        first = subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stdout=log, stderr=log)
    killed: set[str] = set()
    while first.poll() is None and not any(
        event["event"] == "trial_ended" for event in events_in(folder / "journal.jsonl")
    ):
        if len(killed) < 2:
            kill_the_trial_that_trains(folder, killed)
        time.sleep(0.05)
    assert first.poll() is None, (tmp_path / "first.log").read_text()
    first.kill()
    first.wait()
    ended = subprocess.run(
        [*command, "--resume"], cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=900
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Pareto front: squares and bars, miou on its validation and test split" in ended.stdout
    events = events_in(folder / "journal.jsonl")
    assert killed
    assert {event["trial_id"] for event in events if event["event"] == "trial_retried"} >= killed
    states = {event["trial_id"]: event["state"] for event in events if event["event"] == "trial_ended"}
    assert sorted(states) == [f"t{i:04d}" for i in range(5)]
    assert set(states.values()) == {"finished", "stopped"}
    for trial in states:
        trained = [
            event["metrics"]["epoch"]
            for event in events
            if event.get("trial_id") == trial and event["event"] == "epoch"
        ]
        assert trained == list(range(8 if states[trial] == "finished" else 4))
    plans = {trial.trial_id: trial for trial in plan_sweep(load_sweep(file), Segmentation(400)).trials}
    baseline = next((tmp_path / "sweeps/baselines").glob("*/checkpoint.pt"))
    stopped = next(trial for trial, state in states.items() if state == "stopped")
    for trial in {*killed, stopped}:  # the same figures as without a sweep, and without having been killed
        alone = plans[trial].placed(str(baseline), str(tmp_path / "alone" / trial), 1, "cpu", "fp32").run
        epochs = [dict(epoch.metrics) for epoch in fit(alone)]
        kept = read_checkpoint(folder / "trials" / trial / "checkpoint.pt")
        assert [entry["metrics"] for entry in kept["history"]] == epochs[: len(kept["history"])]
        assert len(kept["history"]) >= (8 if states[trial] == "finished" else 4)
    with (folder / "pareto.csv").open() as text:
        rows = {row["trial_id"]: row for row in csv.DictReader(text)}
    assert float(rows["baseline"]["miou"]) > 0.6
    assert all(float(row["test_miou"]) > 0.3 for row in rows.values() if row["pareto"] == "True")
    assert "validation mean intersection over union" in (folder / "pareto.html").read_text()
