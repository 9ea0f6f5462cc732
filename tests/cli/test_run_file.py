"""``raydistill compress run.yaml``: a file says what options say, and what is typed stands above it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.training import read_checkpoint
from tests.cli.conftest import Ended

Command = Callable[..., Ended]
FILE: dict[str, Any] = {
    "model": {"arch": "simplenet_cifar"},
    "dataset": {"name": "digits", "validation": 0.2},
    "training": {
        "epochs": 1, "batch_size": 512, "precision": "fp32",
        "optimizer": {"name": "AdamW", "lr": 0.003, "groups": [{"parameters": ["fc3.*"], "lr": 0.001}], "ema": 0.5},
    },
    "schedule": {
        "pruners": {"agp": {"class": "AutomatedGradualPruner", "initial_sparsity": 0.5, "final_sparsity": 0.6,
                            "weights": ["fc1.weight"]}},
        "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1}],
    },
    "seed": 7,
}  # fmt: skip
OWN: dict[str, Any] = {
    "model": {"arch": "tests.tasks.own:net", "args": {"hidden": 5}},
    "task": {"name": "tests.training.own_loops:Points"},
    "train": {"name": "tests.training.own_loops:train", "args": {"lr": 0.01}},
    "training": {"epochs": 2},
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raydistill: Command) -> Command:
    monkeypatch.chdir(tmp_path)

    def command(said: dict[str, Any], *typed: str) -> Ended:
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(said))
        return raydistill("compress", "run.yaml", "--no-mlflow", *typed)

    return command


@pytest.mark.slow
def test_a_file_is_a_run(run: Command, tmp_path: Path) -> None:
    ended = run(FILE)
    assert (ended.code, ended.err) == (0, "")
    content = read_checkpoint(tmp_path / "runs/run/checkpoint.pt")
    said = content["run"]
    assert (said["arch"], said["batch_size"], said["seed"], said["validation"]) == ("simplenet_cifar", 512, 7, 0.2)
    assert said["optimizer"] == {
        "name": "AdamW", "lr": 0.003, "ema": 0.5, "groups": [{"parameters": ["fc3.*"], "lr": 0.001}],
    }  # fmt: skip
    assert content["history"][0]["layer_sparsity"]["fc1.weight"] == pytest.approx(0.6, abs=1e-4)


@pytest.mark.slow
def test_what_is_typed_stands_above_the_file(run: Command, tmp_path: Path) -> None:
    assert run(FILE, "--seed", "3", "--ema", "0.25", "--name", "other", "--lr", "0.5").code == 0
    said = read_checkpoint(tmp_path / "runs/other/checkpoint.pt")["run"]
    assert (said["seed"], said["batch_size"]) == (3, 512)
    assert (said["optimizer"]["ema"], said["optimizer"]["lr"]) == (0.25, 0.5)


@pytest.mark.slow
def test_tasks_and_loops_of_one_s_own_in_a_file_and_typed(run: Command, tmp_path: Path) -> None:
    assert run(OWN).code == 0
    in_file = read_checkpoint(tmp_path / "runs/run/checkpoint.pt")
    typed = run(
        {"model": {"arch": "simplenet_cifar"}}, "--arch", "tests.tasks.own:net", "--model-args", "hidden: 5",
        "--task", "tests.training.own_loops:Points", "--train", "tests.training.own_loops:train",
        "--train-args", "lr: 0.01", "--epochs", "2", "--name", "typed",
    )  # fmt: skip
    assert (typed.code, typed.err) == (0, "")
    other = read_checkpoint(tmp_path / "runs/typed/checkpoint.pt")
    assert other["run"] == in_file["run"]
    assert [epoch["metrics"] for epoch in other["history"]] == [epoch["metrics"] for epoch in in_file["history"]]
