"""A user's own task: trained, resumed, pruned, searched, by its name alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from raydistill import tasks
from raydistill.datasets import DatasetConfig
from raydistill.errors import ConfigError
from raydistill.records import TrialRecord
from raydistill.schedule import parse_schedule
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import check_plan, plan_sweep
from raydistill.sweep.planning.task import sweep_task
from raydistill.tasks import TaskConfig, Weights
from raydistill.training import RunConfig, evaluate_checkpoint, fit, read_checkpoint
from tests.tasks.own import Line, OnlyLoss

RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
NET, LINE = "tests.tasks.own:net", "tests.tasks.own:Line"
AGP = {
    "version": 1,
    "pruners": {
        "agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.0, "final_sparsity": 0.5, "weights": ["0.weight"],
        }
    },
    "lr_schedulers": {"plateau": {"class": "ReduceLROnPlateau", "mode": "min"}},
    "policies": [
        {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
        {"lr_scheduler": {"instance_name": "plateau"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1},
    ],
}  # fmt: skip
SWEEP = {
    "version": 1,
    "name": "line",
    "model": {"arch": NET},
    "task": {"name": LINE, "args": {"points": 120}},
    "training": {"epochs": 3, "batch_size": 16, "lr": 0.02, "precision": "fp32"},
    "baseline": {"epochs": 2},
    "schedule": {**AGP, "policies": AGP["policies"][:1], "lr_schedulers": {}},
    "search": {"per_layer": [{"weights": ["0.weight"], "final_sparsity": {"uniform": [0.2, 0.9]}}]},
    "constraints": ["mae_rise <= 100"],
    "num_samples": 2,
}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(
        NET, epochs=4, batch_size=16, lr=0.02, out_dir=str(tmp_path / "run"), deterministic=True, threads=1,
        tensorboard=False, device="cpu", task=TaskConfig(LINE), schedule=parse_schedule(AGP, "agp"),
    )  # fmt: skip


@pytest.mark.slow
def test_it_is_trained_and_pruned_and_goes_on_where_it_was(config: RunConfig, tmp_path: Path) -> None:
    whole = list(fit(config))
    assert [list(epoch.metrics) for epoch in whole] == [["mae", "loss"]] * 4
    assert whole[-1].metrics["mae"] < whole[0].metrics["mae"] / 2
    assert whole[-1].layer_sparsity["0.weight"] == pytest.approx(0.5)
    parts = replace(config, out_dir=str(tmp_path / "parts"))
    run = fit(parts)
    first = [next(run), next(run)]
    run.close()
    assert [e.metrics for e in first + list(fit(parts))] == [e.metrics for e in whole]
    content = read_checkpoint(tmp_path / "run/checkpoint.pt")
    assert (content["dataset"], "num_classes" in content) == ("points on a line", False)
    test = evaluate_checkpoint(tmp_path / "run/checkpoint.pt", Line(), "test", "cpu", arch=NET)
    assert (list(test.metrics), test.samples) == (["mae", "loss"], 86)


@pytest.mark.slow
def test_a_tasks_own_evaluation_is_the_mean_loss_over_all_samples(config: RunConfig) -> None:
    *_, last = fit(replace(config, task=TaskConfig("tests.tasks.own:OnlyLoss"), schedule=None))
    x, y = OnlyLoss().splits["validation"]
    state = read_checkpoint(str(last.checkpoint))["model"]
    hidden = torch.relu(x @ state["0.weight"].T + state["0.bias"])
    by_hand = (hidden @ state["2.weight"].T + state["2.bias"] - y).square().mean()
    assert last.metrics == {"loss": pytest.approx(float(by_hand), rel=1e-5)}


def written(tmp_path: Path, **changed: Any) -> Path:
    file = tmp_path / "line.yaml"
    file.write_text(yaml.safe_dump({**SWEEP, **changed}, sort_keys=False))
    return file


def test_a_sweep_takes_objectives_and_scores_from_it(tmp_path: Path) -> None:
    sweep = load_sweep(written(tmp_path, searcher={"name": "random"}))
    assert [(o.name, o.direction) for o in sweep.objectives] == [("mae", "min"), ("sparsity", "max")]
    assert sweep.sections.trial_scheduler.score == {"mae": -1.0, "planned_sparsity": 0.05}
    assert [c.figure for c in sweep.constraints] == ["mae_rise"]
    check_plan(sweep)  # nothing is known before its data are there
    assert len(plan_sweep(sweep, sweep_task(sweep)).trials) == 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"task": {"name": "regresion"}}, "task.name: unknown task, got 'regresion'"),
        ({"task": {"name": "tests.tasks.own:not_a_task"}}, "task.name: is not a Task, got"),
        ({"task": {"name": "tests.tasks.own:NoMetrics"}}, "must have 'metrics' that map names to Metric, 'loss' among"),
        ({"task": {"name": LINE, "arg": 1}}, "task.arg: unknown key"),
        ({"objectives": {"top1": "max"}}, "objectives.top1: unknown objective, got 'top1'"),
        ({"constraints": ["top1_drop <= 1"]}, "unknown figure, got 'top1_drop'"),
        ({"trial_scheduler": {"score": {"top5": 1.0}}}, "trial_scheduler.score.top5: unknown figure"),
    ],
)
def test_what_does_not_fit_it_is_one_line_before_its_data_are_read(
    tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sweep(written(tmp_path, **changed))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        (LINE, {"pints": 3}, "task.args: 'tests.tasks.own:Line' does not take them"),
        ("tests.tasks.own:Broken", {}, "fails (OSError: the disk of the points is gone)"),
        ("classification", {"loss_weight": [0.3]}, "task.args.loss_weight: unknown key"),
    ],
)
def test_a_task_that_cannot_be_loaded_is_one_line(name: str, args: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tasks.load(TaskConfig(name, args), DatasetConfig("digits"), Weights("simplenet_cifar"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_it_is_swept(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    command = [*RUN, "sweep", str(written(tmp_path, confirm=1))]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=500)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Pareto front: points on a line, mae on its validation and test split, seeds: 2" in ended.stdout
    lines = (tmp_path / "sweeps/line/journal.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    trained = [event["metrics"]["metrics"] for event in events if event["event"] == "epoch"]
    assert trained
    assert all(list(metrics) == ["mae", "loss"] for metrics in trained)
    tested = [event["evaluation"] for event in events if event["event"] == "tested"]
    assert all(set(evaluation["metrics"]) == {"mae", "loss"} for evaluation in tested)
    (dense,) = (event["record"] for event in events if event["event"] == "baseline")
    last = TrialRecord.from_json(dense).last
    assert last is not None
    assert last.value("macs") == 6 * 8 + 8
    header = (tmp_path / "sweeps/line/pareto.csv").read_text().splitlines()[0].split(",")
    assert {"mae", "test_mae", "mae_mean", "test_mae_std"} <= set(header)
    assert "top1" not in " ".join(header)


@pytest.mark.slow
def test_the_examples_task_is_trained(config: RunConfig, tmp_path: Path) -> None:
    """As it stands there."""
    code = (Path(__file__).parents[2] / "examples" / "own_task" / "line.py").read_text()
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, "line.py", "exec"), names)
    run = replace(config, schedule=None, out_dir=str(tmp_path / "readme"))
    first, *_, last = fit(run, task=names["Line"]())
    assert last.metrics["mae"] < first.metrics["mae"]
    assert len(code.strip().splitlines()) <= 40
