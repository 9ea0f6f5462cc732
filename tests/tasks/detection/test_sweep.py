"""mAP against sparsity: the file that is shipped, and a whole sweep of a small detector through Ray."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.planning.plan import check_plan, plan_sweep
from raydistill.sweep.planning.task import sweep_task
from tests.tasks.detection.shapes import write

RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
WEIGHTS = ["backbone.*.weight", "roi_heads.box_head.*.weight"]
SWEEP: Mapping[str, Any] = {
    "version": 1,
    "name": "shapes",
    "model": {"arch": "tests.tasks.detection.shapes:small"},
    "task": {"name": "detection"},
    "training": {"epochs": 8, "batch_size": 4, "lr": 0.02, "deterministic": True},
    "baseline": {"epochs": 30, "lr": 0.05},
    "schedule": {
        "pruners": {
            "agp": {
                "class": "AutomatedGradualPruner", "initial_sparsity": 0.05, "final_sparsity": 0.5, "weights": WEIGHTS,
            }
        },
        "lr_schedulers": {"decay": {"class": "CosineAnnealingLR", "T_max": 8}},
        "policies": [
            {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1},
            {"lr_scheduler": {"instance_name": "decay"}, "starting_epoch": 0, "ending_epoch": 8, "frequency": 1},
        ],
    },
    "search": {
        "per_layer": [
            {
                "weights": ["backbone.3.weight", "roi_heads.box_head.*.weight"],
                "final_sparsity": {"uniform": [0.2, 0.99]},
            }
        ],
        "training.lr": {"loguniform": [0.005, 0.03]},
    },
    "objectives": {"map": "max", "sparsity": "max"},
    "searcher": {"name": "sobol"},
    "trial_scheduler": {"name": "moasha", "grace_period": 4},
    "constraints": ["map_50_drop <= 0.9"],
    "num_samples": 6,
}  # fmt: skip
COUNTS = {"train": 40, "val": 16, "test": 16}


def written(folder: Path, **changed: Any) -> Path:
    data = write(folder / "images", COUNTS)
    file = folder / "shapes.yaml"
    said = {**SWEEP, **changed, "dataset": {"data_dir": str(data)}}
    file.write_text(yaml.safe_dump(said, sort_keys=False))
    return file


@pytest.mark.slow
def test_a_plan_has_a_value_for_each_layer_and_its_objectives_are_map_and_sparsity(tmp_path: Path) -> None:
    sweep = load_sweep(written(tmp_path))
    assert [(o.name, o.direction) for o in sweep.objectives] == [("map", "max"), ("sparsity", "max")]
    check_plan(sweep)
    plan = plan_sweep(sweep, sweep_task(sweep))
    assert [dimension.path for dimension in plan.space.dimensions] == [
        "training.lr",
        "per_layer.backbone.3.weight.final_sparsity",
        "per_layer.roi_heads.box_head.1.weight.final_sparsity",
    ]


@pytest.mark.slow  # builds torchvision's detector
def test_the_shipped_file_is_planned_on_such_a_folder(root: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "images", {"train": 4, "val": 2})
    sweep = load_sweep(root / "search_spaces/detection.yaml", Overrides(data_dir=str(data)))
    task = sweep_task(sweep)
    plan = plan_sweep(sweep, task)
    sparsities = {round(trial.planned_sparsity, 6) for trial in plan.trials}
    assert len(sparsities) == len(plan.trials) == 16
    assert all(0.1 < sparsity < 0.98 for sparsity in sparsities)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [*RUN, *arguments], cwd=folder, text=True, capture_output=True, timeout=1200,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_a_trained_detector_is_swept(tmp_path: Path) -> None:
    file = written(tmp_path)
    ended = run(tmp_path, "sweep", str(file), "--cpu")
    assert "loading images (detection)" in ended.stdout
    assert "is not called with one tensor" not in ended.stdout
    (offered,) = [line for line in ended.stdout.splitlines() if "raydistill pick" in line]
    pick = shlex.split(offered[offered.index("raydistill pick") :])[1:]
    picked = run(tmp_path, *pick, "--arch", SWEEP["model"]["arch"], "-o", "net", "--no-latency")
    assert "left out: pt2: torch.export cannot trace the network" in picked.stdout
    verified = run(tmp_path, "verify", "net", "--arch", SWEEP["model"]["arch"])
    assert verified.stdout.count("that of the masked network, 16 samples") == 3, "onnx, safetensors, checkpoint"
    assert "Pareto front: images, map on its validation and test split" in ended.stdout
    folder = tmp_path / "sweeps/shapes"
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    epochs: dict[str, list[Mapping[str, Any]]] = {}
    for event in events:
        if event["event"] == "epoch":
            epochs.setdefault(event["trial_id"], []).append(event["metrics"])
    states = {event["trial_id"]: event["state"] for event in events if event["event"] == "trial_ended"}
    assert set(states) == {f"t{i:04d}" for i in range(6)}
    assert set(states.values()) == {"finished", "stopped"}
    assert {len(epochs[trial]) for trial, state in states.items() if state == "stopped"} == {4}
    assert all(list(epoch["metrics"]) == ["map", "map_50", "loss"] for trial in epochs.values() for epoch in trial)
    with (folder / "pareto.csv").open() as text:
        rows = {row["trial_id"]: row for row in csv.DictReader(text)}
    finished = {trial for trial, state in states.items() if state == "finished"}
    assert set(rows) == finished | {"baseline"}
    assert float(rows["baseline"]["map_50"]) > 0.9
    assert all(float(rows[trial]["map"]) == pytest.approx(epochs[trial][-1]["metrics"]["map"]) for trial in finished)
    points = {trial: (float(row["map"]), float(row["sparsity"])) for trial, row in rows.items()}
    front = {
        trial for trial, (precision, zeros) in points.items()
        if not any(p >= precision and z >= zeros and (p, z) != (precision, zeros) for p, z in points.values())
    }  # fmt: skip
    assert {trial for trial, row in rows.items() if row["pareto"] == "True"} == front
    assert all((float(rows[trial]["test_map_50"]) > 0.5) for trial in front)
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("shapes").experiment_id])
    of_trials = {run.data.tags.get("raydistill.trial_id", ""): run for run in runs}
    for trial in states:
        kept = client.get_metric_history(of_trials[trial].info.run_id, "map")
        assert [metric.value for metric in kept] == [epoch["metrics"]["map"] for epoch in epochs[trial]]
    assert "validation mean average precision (IoU 0.5 to 0.95) (images)" in (folder / "pareto.html").read_text()
