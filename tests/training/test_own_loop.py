"""A training loop of one's own is a run like any other: kept, resumed, stopped, its faults told."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.datasets import DatasetConfig
from raydistill.errors import CheckpointError, ConfigError, TrainingError
from raydistill.parts import Optimizer
from raydistill.schedule import parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import OwnLoop, RunConfig, evaluate_checkpoint, fit, read_checkpoint
from tests.training.own_loops import Points

LOOPS = "tests.training.own_loops"
SCHEDULE = {
    "pruners": {
        "agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.5, "weights": ["0.weight"],
        }
    },
    "regularizers": {"l1": {"class": "L1Regularizer", "reg_regims": {"2.weight": 0.01}}},
    "policies": [
        {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
        {"regularizer": {"instance_name": "l1"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1},
    ],
}  # fmt: skip


def run(folder: Path, loop: str = "train", **args: Any) -> RunConfig:
    return RunConfig(
        "tests.tasks.own:net", task=TaskConfig(f"{LOOPS}:Points"), train=OwnLoop(f"{LOOPS}:{loop}", args), epochs=4,
        schedule=parse_schedule(SCHEDULE, "s"), device="cpu", threads=1, deterministic=True, out_dir=str(folder),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["train", "report"])
def test_it_is_stopped_after_any_epoch_and_goes_on_bit_for_bit(loop: str, tmp_path: Path) -> None:
    before = threading.active_count()
    whole = list(fit(run(tmp_path / "whole", loop)))
    assert [epoch.epoch for epoch in whole] == [0, 1, 2, 3]
    assert whole[-1].metrics["mae"] < whole[0].metrics["mae"]
    assert whole[-1].layer_sparsity["0.weight"] == pytest.approx(0.5)
    parts = run(tmp_path / "parts", loop)
    found = []
    for _ in range(4):
        part = fit(parts)
        found.append(next(part).metrics)
        part.close()
    assert found == [epoch.metrics for epoch in whole]
    one, other = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    assert all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    assert one["own"] == other["own"] == {"seen": 4 * 128}
    assert threading.active_count() == before
    test = evaluate_checkpoint(tmp_path / "whole/checkpoint.pt", Points(), "test", "cpu", arch="tests.tasks.own:net")
    assert test.metrics["mae"] == pytest.approx(whole[-1].metrics["mae"], rel=0.5)
    assert list(fit(run(tmp_path / "whole", loop))) == []  # it has all of its epochs


@pytest.mark.slow
def test_both_forms_learn_the_same(tmp_path: Path) -> None:
    one, other = (
        [epoch.metrics for epoch in fit(run(tmp_path / loop, loop))] for loop in ("train", "report")
    )  # fmt: skip
    assert one == other


@pytest.mark.parametrize(("loop", "said"), [("train", False), ("as_the_engine_does", True)])
def test_a_train_loss_is_recorded_where_the_loop_says_it(loop: str, said: bool, tmp_path: Path) -> None:
    task = TaskConfig("tests.tasks.own:Line") if said else TaskConfig(f"{LOOPS}:Points")
    (epoch,) = fit(replace(run(tmp_path, loop), task=task, epochs=1, schedule=None))
    kept = read_checkpoint(tmp_path / "checkpoint.pt")["history"][0]
    assert kept["train_loss"] == epoch.train_loss
    assert ("train_loss" in epoch.scalars) is said
    assert (epoch.train_loss is not None) is said


@pytest.mark.slow
def test_a_loop_that_does_what_the_engine_does_learns_what_the_engine_learns(tmp_path: Path) -> None:
    schedule = {
        **SCHEDULE,
        "pruners": {"agp": {**SCHEDULE["pruners"]["agp"], "weights": ["fc1.weight"]}},  # type: ignore[index]
        "regularizers": {"l1": {"class": "L1Regularizer", "reg_regims": {"fc2.weight": 0.001}}},
    }
    engine = RunConfig(
        "simplenet_cifar", DatasetConfig("digits"), epochs=3, batch_size=128, schedule=parse_schedule(
            {**schedule, "policies": [{**policy, "ending_epoch": 3} for policy in SCHEDULE["policies"]]}, "s"
        ), optimizer=Optimizer(name="AdamW", lr=0.003), precision="fp32", device="cpu", threads=1, deterministic=True,
        effective_train_size=0.3, tensorboard=False, out_dir=str(tmp_path / "engine"),
    )  # fmt: skip
    own = replace(engine, train=OwnLoop(f"{LOOPS}:as_the_engine_does"), out_dir=str(tmp_path / "own"))
    theirs, ours = list(fit(engine)), list(fit(own))
    assert [epoch.metrics for epoch in ours] == [epoch.metrics for epoch in theirs]
    assert [epoch.sparsity for epoch in ours] == [epoch.sparsity for epoch in theirs]
    assert [epoch.train_loss for epoch in ours] == pytest.approx([epoch.train_loss for epoch in theirs], abs=1e-5)
    states = [read_checkpoint(tmp_path / name / "checkpoint.pt")["model"] for name in ("engine", "own")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
def test_what_was_drawn_stands_in_its_arguments_and_its_identity(tmp_path: Path) -> None:
    list(fit(run(tmp_path, lr=0.01)))
    assert read_checkpoint(tmp_path / "checkpoint.pt")["run"]["train"]["args"] == {"lr": 0.01}
    with pytest.raises(CheckpointError, match=r"was trained with train .*'lr': 0.01"):
        next(fit(replace(run(tmp_path, lr=0.02), epochs=5)))


def test_an_error_of_the_user_s_comes_out_as_it_is(tmp_path: Path) -> None:
    training = fit(run(tmp_path, "raises"))
    assert next(training).epoch == 0
    with pytest.raises(ZeroDivisionError, match="in the second epoch"):
        next(training)
    assert read_checkpoint(tmp_path / "checkpoint.pt")["epoch"] == 0


NAN = float("nan")


@pytest.mark.parametrize(
    ("loop", "args", "line"),
    [
        ("without_begin", {}, r"train: must call trial.begin\(model, optimizer\) before its first epoch"),
        ("other_metrics", {"yields": {"mea": 1.0}}, r"yields a metric that the task does not know, got 'mea'; .*'mae'"),
        ("other_metrics", {"yields": {"mae": 1.0}}, r"yields no 'loss', got \['mae'\]"),
        ("other_metrics", {"yields": 0.5}, r"yields no metrics, got 'float'; yield a mapping with mae, loss"),
        ("other_metrics", {"yields": {"mae": NAN, "loss": 1.0}}, r"epoch 0: mae must be finite, got nan"),
        ("ends_early", {}, r"train: ended after 1 of 4 epochs; yield once an epoch"),
    ],
)
def test_what_a_loop_does_wrong_is_one_line(loop: str, args: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=line):
        list(fit(run(tmp_path, loop, **args)))


@pytest.mark.parametrize(
    ("loop", "line"),
    [
        (f"{LOOPS}:gone", r"train.name: module 'tests.training.own_loops' has no such training loop"),
        ("gone:train", r"cannot import training loop \(ModuleNotFoundError"),
        (f"{LOOPS}:TRAIN", r"must be a function of a trial, got"),
        (f"{LOOPS}:of_two", r"must be a function of a trial \(missing a required argument: 'other'\)"),
    ],
)
def test_what_is_no_loop_is_refused_before_anything_runs(loop: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=line):
        next(fit(replace(run(tmp_path), train=OwnLoop(loop))))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_examples_loop_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands there."""
    text = (Path(__file__).parents[2] / "examples" / "own_loop" / "points.py").read_text()
    (tmp_path / "readmes.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = RunConfig(
        "tests.tasks.own:net", task=TaskConfig("readmes:Points"), train=OwnLoop("readmes:train", {"lr": 0.02}),
        schedule=parse_schedule(SCHEDULE, "s"), epochs=5, device="cpu", out_dir=str(tmp_path / "run"),
    )  # fmt: skip
    epochs = list(fit(config))
    assert epochs[-1].metrics["mae"] < epochs[0].metrics["mae"]
    assert epochs[-1].layer_sparsity["0.weight"] == pytest.approx(0.5)
