"""The optimizer section of a sweep file: read, searched, handed to trials and to the baseline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.errors import ConfigError
from raydistill.parts import Optimizer, hashed, identity
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.file.space_file import training_section
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.planning.runs import baseline_config
from raydistill.training import RunConfig
from tests.tasks.own import Line

Write = Callable[..., Path]
SWEEP = {
    "version": 1,
    "name": "line",
    "model": {"arch": "tests.tasks.own:net"},
    "task": {"name": "tests.tasks.own:Line"},
    "training": {"epochs": 3, "batch_size": 16, "precision": "fp32"},
    "baseline": {"epochs": 2},
    "schedule": {"policies": []},
    "search": {},
    "num_samples": 4,
}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(training: dict[str, Any], search: dict[str, Any], **others: Any) -> Path:
        search = search or {"training.batch_size": {"choice": [8, 16]}}
        said = {**SWEEP, "training": {**SWEEP["training"], **training}, "search": search, **others}  # type: ignore[dict-item]
        file = tmp_path / "space.yaml"
        file.write_text(yaml.safe_dump(said))
        return file

    return written


@pytest.mark.slow
def test_what_is_drawn_stands_in_each_trial_s_optimizer(write: Write) -> None:
    search = {
        "training.optimizer.lr": {"loguniform": [0.001, 0.1]},
        "training.optimizer.name": {"choice": ["AdamW", "RMSprop"]},
        "training.optimizer.args.eps": {"uniform": [1e-8, 1e-6]},
        "training.optimizer.ema": {"choice": [0.9, 0.99]},
    }
    sweep = load_sweep(write({"optimizer": {"name": "AdamW", "clip_norm": 1.0, "no_decay": ["biases"]}}, search))
    for trial in plan_sweep(sweep, Line()).trials:
        found = trial.run.optimizer
        values = trial.values
        assert (found.lr, found.name) == (values["training.optimizer.lr"], values["training.optimizer.name"])
        assert found.args == {"eps": values["training.optimizer.args.eps"]}
        assert (found.ema, found.clip_norm, found.no_decay) == (values["training.optimizer.ema"], 1.0, ("biases",))
    assert len({trial.run.optimizer.name for trial in plan_sweep(sweep, Line()).trials}) == 2


def test_the_baseline_s_rate_goes_where_the_optimizer_has_its_own(write: Write) -> None:
    search = {"training.optimizer.lr": {"loguniform": [0.001, 0.1]}}
    adam = load_sweep(write({"optimizer": {"name": "AdamW", "lr": 0.01}}, search, baseline={"lr": 0.5}))
    assert (baseline_config(adam).optimizer, baseline_config(adam).lr) == (Optimizer(name="AdamW", lr=0.5), 0.05)
    sgd = load_sweep(write({"lr": 0.1}, {"training.lr": {"loguniform": [0.001, 0.1]}}, baseline={"lr": 0.5}))
    assert (baseline_config(sgd).optimizer, baseline_config(sgd).lr) == (Optimizer(), 0.5)


@pytest.mark.parametrize(
    ("optimizer", "search", "lines"),
    [
        ({"name": "AdamW", "clip_nrm": 1}, {}, ["training.optimizer.clip_nrm: unknown key; did you mean 'clip_norm'?"]),
        ({"clip_norm": 0, "accumulate": "two"}, {}, ["training.optimizer.clip_norm: must be above 0, got 0",
          "training.optimizer.accumulate: must be a whole number, got 'two'"]),
        ({"name": "AdmW"}, {}, ["training.optimizer.name: unknown optimizer, got 'AdmW'; did you mean 'AdamW'?"]),
        ({"name": "AdamW", "args": {"betas": 3, "x": 1}}, {}, ["training.optimizer.args.x: unknown argument"]),
        ({"groups": [{"parameters": ["no*"]}]}, {}, ["training.optimizer.groups[0].parameters: match no parameter"]),
        ({}, {"training.optimizer.lrr": {"uniform": [0, 1]}}, ["search.training.optimizer.lrr: unknown key; did you"]),
        ({"name": "Adam"}, {"training.lr": {"uniform": [0.1, 1]}}, ["search.training: lr is SGD's, the optimizer"]),
        ({"name": "Adam"}, {"training.optimizer.accumulate": {"uniform": [0.1, 1]}},
         ["search.training.optimizer.accumulate: must be a whole number (with the lowest"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_by_its_key(
    optimizer: dict[str, Any], search: dict[str, Any], lines: list[str], write: Write
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(load_sweep(write({"optimizer": optimizer}, search)), Line())
    said = str(caught.value).splitlines()
    assert len(said) == len(lines)
    for line, found in zip(lines, said, strict=True):
        assert f"space.yaml: {line}" in found


def test_a_rate_of_sgd_s_that_was_written_beside_another_optimizer_is_not_passed_over(write: Write) -> None:
    """Even where it is the default: who writes it means it."""
    with pytest.raises(ConfigError, match=r"training: lr is SGD's, the optimizer is AdamW; say it in optimizer"):
        load_sweep(write({"lr": 0.05, "optimizer": {"name": "AdamW"}}, {}))


def test_runs_of_before_know_nothing_of_it() -> None:
    """Checkpoints and baselines that are there keep their identity and their hash."""
    said = RunConfig("simplenet_cifar")
    assert "optimizer" not in identity(said)
    assert "optimizer" not in hashed(said, {"optimizer": {}, "lr": 0.05})
    assert identity(RunConfig("simplenet_cifar", optimizer=Optimizer(ema=0.9)))["optimizer"] == {"ema": 0.9}


def test_a_space_that_sensitivity_writes_lowers_the_rate_where_it_stands() -> None:
    adam = {"lr": 0.05, "batch_size": 32, "optimizer": {"name": "AdamW", "lr": 0.01, "no_decay": ["norms"]}}
    assert training_section(9, adam) == {
        "epochs": 9, "batch_size": 32, "optimizer": {"name": "AdamW", "lr": 0.004, "no_decay": ["norms"]},
    }  # fmt: skip
    own_default = {"optimizer": {"name": "AdamW"}}
    assert training_section(9, own_default)["optimizer"]["lr"] == 0.0004
    assert training_section(9, {"lr": 0.05, "optimizer": {"ema": 0.9}}) == {
        "epochs": 9,
        "optimizer": {"ema": 0.9},
        "lr": 0.02,
    }
