from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raydistill.records import BASELINE, FAILED, FINISHED, STOPPED, EpochMetrics, Evaluation, Scalar, TrialRecord

START_MS = 1_700_000_000_000


def make_epoch(number: int, top1: float = 0.5, sparsity: float = 0.25, **changed: Any) -> EpochMetrics:
    values: dict[str, Any] = {
        "epoch": number, "epochs": 3, "train_loss": 1.5,
        "metrics": {"top1": top1, "top5": min(1.0, top1 + 0.25), "loss": 1.25},
        "learning_rate": 0.1, "sparsity": sparsity, "samples_per_second": 1000.0, "seconds": 1.0,
        "layer_sparsity": {"conv1.weight": sparsity, "fc1.weight": sparsity / 2},
        "timestamp_ms": START_MS + 1000 * number,
    }  # fmt: skip
    return EpochMetrics(**(values | changed))


def make_trial(
    trial_id: str, top1: float = 0.5, sparsity: float = 0.25, state: str = FINISHED, **changed: Any
) -> TrialRecord:
    searched: dict[str, Scalar] = {"pruners.conv1_pruner.final_sparsity": sparsity, "policies[0].frequency": 2}
    values: dict[str, Any] = {
        "values": searched, "state": state, "arch": "simplenet_cifar", "dataset": "digits", "seed": 7, "epochs": 3,
        "reason": "ran all its epochs", "last": make_epoch(2, top1, sparsity), "started_ms": START_MS,
        "ended_ms": START_MS + 9000,
    }  # fmt: skip
    return TrialRecord(trial_id, **(values | changed))


def make_evaluation(top1: float) -> Evaluation:
    return Evaluation("test", {"top1": top1, "top5": min(1.0, top1 + 0.2), "loss": 1.5}, 1000)


@pytest.fixture
def epoch() -> Callable[..., EpochMetrics]:
    return make_epoch


@pytest.fixture
def trial() -> Callable[..., TrialRecord]:
    return make_trial


@pytest.fixture
def evaluation() -> Callable[[float], Evaluation]:
    return make_evaluation


@pytest.fixture
def records() -> list[TrialRecord]:
    """A small sweep: the baseline, one on the front, one dominated, one stopped, one failed."""
    return [
        make_trial(BASELINE, 0.9, 0.0),
        make_trial("t0000", 0.85, 0.5),
        make_trial("t0001", 0.8, 0.4),
        make_trial("t0002", 0.2, 0.1, STOPPED, reason="stopped at epoch 1: dominated by 3 of 4 trials"),
        make_trial("t0003", 0.1, 0.1, FAILED, reason="loss is NaN at epoch 2"),
    ]


@pytest.fixture
def storage(tmp_path: Path, tables: Path) -> Path:
    """A sweep's storage whose embedded store has its tables already; the path has a space and a letter beyond ASCII."""
    folder = tmp_path / "sweeps ü" / "simplenet"
    folder.mkdir(parents=True)
    shutil.copy(tables, folder / "mlflow.db")
    return folder


@pytest.fixture
def runs() -> Callable[[str, str], dict[str, Any]]:
    """All runs of an experiment by name, read back through a client of the test's own."""

    def read(uri: str, experiment: str = "simplenet") -> dict[str, Any]:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        assert found is not None
        pages = client.search_runs([found.experiment_id], max_results=1000)
        by_name = {run.info.run_name: run for run in pages}
        assert len(by_name) == len(pages), "two runs with one name"
        return by_name

    return read
