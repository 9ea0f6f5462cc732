"""A whole sweep of a training loop of one's own: stopped early, killed, resumed, its front judged and delivered."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.errors import ConfigError
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.training import OwnLoop, fit, read_checkpoint
from tests.training.own_loops import Points

RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
LOOPS = "tests.training.own_loops"
SWEEP: Mapping[str, Any] = {
    "version": 1,
    "name": "own",
    "model": {"arch": "tests.tasks.own:net"},
    "task": {"name": f"{LOOPS}:Points"},
    "train": f"{LOOPS}:train",
    "training": {"epochs": 3},
    "baseline": {"epochs": 2},
    "schedule": {
        "pruners": {
            "agp": {"class": "AutomatedGradualPruner", "initial_sparsity": 0.0, "final_sparsity": 0.5,
                    "weights": ["0.weight"]}
        },
        "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 2, "frequency": 1}],
    },
    "search": {
        "train.args.lr": {"loguniform": [0.005, 0.05]},
        "per_layer": [{"weights": ["0.weight"], "final_sparsity": {"uniform": [0.2, 0.9]}}],
    },
    "trial_scheduler": {"name": "moasha", "grace_period": 1},
    "num_samples": 4,
}  # fmt: skip


def written(folder: Path, **changed: Any) -> Path:
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump({**SWEEP, **changed}))
    return file


def test_what_is_drawn_reaches_the_loop(tmp_path: Path) -> None:
    loop = {"name": f"{LOOPS}:train", "args": {"lr": 1.0, "width": 3}}
    plan = plan_sweep(load_sweep(written(tmp_path, train=loop)), Points())
    for trial in plan.trials:
        expected = {"lr": trial.values["train.args.lr"], "width": 3}
        assert trial.run.train == OwnLoop(f"{LOOPS}:train", expected)
        assert trial.run.values == trial.values


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"train": "train"}, "own.yaml: train"),
        (
            {"train": {"name": f"{LOOPS}:trian"}},
            "train.name: module 'tests.training.own_loops' has no such training loop",
        ),
        ({"train": {"name": f"{LOOPS}:of_two"}}, "train.name: must be a function of a trial"),
        ({"train": None}, "search.train.args.lr: is for a training loop of one's own; name it"),
        ({"search": {"train.lr": {"uniform": [0, 1]}}}, "search.train.lr: unknown key; as in train.args.NAME"),
        (
            {"workers_per_trial": 2, "train": f"{LOOPS}:report"},
            "train.name: must be a generator to train on several workers: one that calls trial.report trains in one",
        ),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_starts(changed: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(load_sweep(written(tmp_path, **changed)), Points())
    assert len(str(caught.value).splitlines()) == 1
    assert line in str(caught.value)


@pytest.mark.long  # tests/cluster/test_own_loop_workers.py has workers that are killed, stopped and resumed
@pytest.mark.ray
def test_trials_on_workers_are_stopped_early_and_lose_nothing(sweep_here: Callable[..., str], tmp_path: Path) -> None:
    """One worker of one trial is killed; all are judged, and some stopped, by what both of its workers have yielded."""
    args = {"mark": str(tmp_path / "killed"), "lr": 0.02}
    file = written(
        tmp_path, train={"name": "tests.training.own_loops_on_ranks:dies_once", "args": args}, workers_per_trial=2,
        resources_per_trial={"cpu": 1}, num_samples=2, trial_scheduler={"name": "asha", "grace_period": 1},
    )  # fmt: skip
    sweep_here(file, "--cpu")
    assert (tmp_path / "killed").exists()
    events = [json.loads(line) for line in (tmp_path / "sweeps/own/journal.jsonl").read_text().splitlines()]
    ended = {event["trial_id"]: event["state"] for event in events if event["event"] == "trial_ended"}
    assert sorted(ended) == [f"t{i:04d}" for i in range(2)]
    assert set(ended.values()) <= {"finished", "stopped"}
    assert any(event["event"] == "trial_retried" for event in events)
    for trial_id, state in ended.items():
        kept = read_checkpoint(tmp_path / "sweeps/own/trials" / trial_id / "checkpoint.pt")
        epochs = len(kept["history"])
        assert epochs == 3 if state == "finished" else epochs < 3
        assert kept["own"] == {"seen": epochs * 128}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("loop", "arch", "weight", "needs"),
    [
        pytest.param(
            f"{LOOPS}:dies_once", "tests.tasks.own:net", "0.weight", "torch", id="generator",
            marks=pytest.mark.long,  # test_own_loop_workers kills one, test_run any trial and its driver
        ),
        pytest.param(
            "tests.adapters.loops:lightning_that_dies", "tests.tasks.own:net", "0.weight", "lightning",
            id="lightning", marks=pytest.mark.long,
        ),
        pytest.param(
            "tests.adapters.loops:transformers_that_dies", "tests.adapters.loops:wrapped_net", "net.0.weight",
            "accelerate", id="transformers", marks=pytest.mark.long,
        ),
    ],
)  # fmt: skip
def test_killed_trials_and_a_killed_driver_lose_nothing(
    loop: str, arch: str, weight: str, needs: str, sweep_here: Callable[..., str], tmp_path: Path
) -> None:
    """Every pruned trial's process is killed once; then the driver is, and the sweep is resumed."""
    pytest.importorskip(needs)
    schedule = json.loads(json.dumps(SWEEP["schedule"]).replace("0.weight", weight))
    search = {
        "train.args.lr": {"loguniform": [0.005, 0.05]},
        "per_layer": [{"weights": [weight], "final_sparsity": {"uniform": [0.2, 0.9]}}],
    }
    share = {"cpu": 2}
    file = written(
        tmp_path, train=loop, model={"arch": arch}, schedule=schedule, search=search, resources_per_trial=share,
        num_samples=3,
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [*RUN, "sweep", str(file), "--cpu"]
    journal = tmp_path / "sweeps/own/journal.jsonl"
    first = subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE, stdout=-1)
    while first.poll() is None and not (journal.exists() and "trial_ended" in journal.read_text()):
        time.sleep(0.2)
    first.kill()
    first.communicate()
    sweep_here(file, "--cpu", "--resume")
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    last = {event["trial_id"]: event["state"] for event in events if event["event"] == "trial_ended"}
    assert sorted(last) == [f"t{i:04d}" for i in range(3)]
    assert set(last.values()) == {"finished", "stopped"}
    assert any(event["event"] == "trial_retried" for event in events)
    plans = {trial.trial_id: trial for trial in plan_sweep(load_sweep(file), Points()).trials}
    baseline = next((tmp_path / "sweeps/baselines").glob("*/checkpoint.pt"))
    finished = [trial_id for trial_id, state in last.items() if state == "finished"]
    for trial_id in finished[:1]:  # the same figures as without a sweep, and without having been killed
        plan = plans[trial_id]
        alone = plan.placed(str(baseline), str(tmp_path / "alone" / plan.trial_id), 2, "cpu", "fp32").run
        (tmp_path / "alone" / plan.trial_id).mkdir(parents=True)
        (tmp_path / "alone" / plan.trial_id / "killed").touch()
        epochs = list(fit(alone))
        kept = read_checkpoint(tmp_path / "sweeps/own/trials" / plan.trial_id / "checkpoint.pt")
        assert [entry["metrics"] for entry in kept["history"]] == [dict(epoch.metrics) for epoch in epochs]
    with (tmp_path / "sweeps/own/pareto.csv").open() as text:
        front = [row for row in csv.DictReader(text) if row["trial_id"] in last]
    assert front
    assert all(float(row["test_mae"]) > 0 for row in front if row["test_mae"])
