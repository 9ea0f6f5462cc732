"""A trial's folder before its first epoch: with what it has in common with others, or empty."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from raydistill.datasets import DatasetConfig
from raydistill.errors import CheckpointError
from raydistill.schedule import parse_schedule
from raydistill.storage.store import Folder
from raydistill.sweep.planning.plan import TrialPlan
from raydistill.sweep.trial.fork import fork
from raydistill.training import RunConfig, fit, read_checkpoint, read_history

pytestmark = pytest.mark.slow


def run(level: float, folder: Path) -> RunConfig:
    acts = {"starting_epoch": 1, "ending_epoch": 2, "frequency": 1}
    pruner = {
        "class": "AutomatedGradualPruner",
        "initial_sparsity": 0.0,
        "final_sparsity": level,
        "weights": ["fc1.weight"],
    }
    said = {"version": 1, "pruners": {"p": pruner}, "policies": [{"pruner": {"instance_name": "p"}, **acts}]}
    return RunConfig(
        "simplenet_cifar", DatasetConfig("digits"), schedule=parse_schedule(said, "s"), epochs=2, batch_size=64,
        threads=1, device="cpu", precision="fp32", effective_train_size=0.2, tensorboard=False, out_dir=str(folder),
    )  # fmt: skip


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    epochs = fit(run(0.3, folder))
    next(epochs)
    epochs.close()
    return folder / "checkpoint.pt"


def forked(common: Path | str | None, folder: Path, level: float = 0.8) -> Path:
    folder.mkdir(exist_ok=True)
    plan = TrialPlan("t0000", {}, run(level, folder), 0.0, fork=None if common is None else str(common))
    fork(plan, Folder(folder.parent), folder)
    return folder / "checkpoint.pt"


def test_a_fork_ends_as_the_same_run_from_its_start(common: Path, tmp_path: Path) -> None:
    checkpoint = forked(common, tmp_path / "fork")
    assert [metrics.epoch for metrics in read_history(checkpoint)] == [0]
    trained = list(fit(run(0.8, tmp_path / "fork")))
    whole = list(fit(run(0.8, tmp_path / "whole")))
    assert [metrics.epoch for metrics in trained] == [1]
    assert trained[-1].metrics == whole[-1].metrics
    assert trained[-1].sparsity == whole[-1].sparsity > 0.5
    ours, theirs = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("fork", "whole"))
    assert all((ours["model"][name] == weight).all() for name, weight in theirs["model"].items())
    assert (ours["schedule"], ours["schedule_hash"]) == (theirs["schedule"], theirs["schedule_hash"])


def test_what_a_trial_has_trained_stays(common: Path, tmp_path: Path) -> None:
    list(fit(run(0.8, tmp_path / "begun")))
    before = (tmp_path / "begun" / "checkpoint.pt").read_bytes()
    assert forked(common, tmp_path / "begun").read_bytes() == before


@pytest.mark.parametrize("what", ["nothing in common", "gone", "cut off"])
def test_without_them_a_trial_begins_at_its_first_epoch(common: Path, tmp_path: Path, what: str) -> None:
    cut = tmp_path / "cut.pt"
    cut.write_bytes(common.read_bytes()[:-100])
    start = {"nothing in common": None, "gone": tmp_path / "gone.pt", "cut off": cut}[what]
    assert not forked(start, tmp_path / "trial").exists()


def test_a_fork_says_no_epochs_of_another_training(common: Path, tmp_path: Path) -> None:
    """Whoever is given one by mistake is told, as of any other checkpoint."""
    forked(common, tmp_path / "fork")
    with pytest.raises(CheckpointError, match=r"was trained with lr 0\.05, got 0\.02"):
        list(fit(replace(run(0.8, tmp_path / "fork"), lr=0.02)))
