"""Sweep files for tests: a small one that is right, and ways to break it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.tasks.classification import Classification
from tests.cli.conftest import Ended, raydistill

__all__ = ["raydistill"]  # pytest finds it here

ROOT = Path(__file__).parents[2]
ONE_AT_A_TIME = {"cpu": len(os.sched_getaffinity(0)) / 2 + 0.5}
"""Each process that trains or evaluates takes seconds of a core to import torch, and one by one they are used again. Of
two cores it takes one thread."""

SWEEP: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "model": {"arch": "simplenet_cifar"},
    "dataset": {"name": "digits"},
    "training": {"epochs": 4, "batch_size": 128, "lr": 0.02},
    "baseline": {"epochs": 3, "lr": 0.05},
    "schedule": {
        "version": 1,
        "pruners": {
            "agp": {
                "class": "AutomatedGradualPruner",
                "initial_sparsity": 0.05,
                "final_sparsity": 0.5,
                "weights": ["conv1.weight", "fc1.weight", "fc2.weight"],
            }
        },
        "policies": [
            {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
        ],
    },
    "search": {
        "training.lr": {"loguniform": [0.01, 0.05]},
        "per_layer": {"weights": ["fc1.weight", "fc2.weight"], "final_sparsity": {"uniform": [0.3, 0.95]}},
    },
    "searcher": {"name": "random"},
    "trial_scheduler": {"name": "none"},
    "resources_per_trial": ONE_AT_A_TIME,
    "num_samples": 3,
    "seed": 0,
}


def changed(mapping: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a dotted path replaced; `...` removes it."""
    head, _, rest = path.partition("/")
    result = dict(mapping)
    if rest:
        result[head] = changed(result.get(head) or {}, rest, value)
    elif value is ...:
        del result[head]
    else:
        result[head] = value
    return result


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a sweep that has trained `SWEEP`'s baseline, and nothing else."""
    from raydistill import datasets
    from raydistill.sweep.baseline import baseline_hash
    from raydistill.sweep.file.load import load_sweep
    from raydistill.sweep.planning.runs import baseline_config
    from raydistill.training import fit

    storage = tmp_path_factory.mktemp("dense")
    file = storage / "space.yaml"
    file.write_text(yaml.safe_dump(SWEEP))
    sweep = load_sweep(file)
    task = Classification(datasets.load(sweep.dataset))
    run = baseline_config(sweep)
    folder = storage / "baselines" / baseline_hash(run, task.fingerprint())
    for _ in fit(replace(run, out_dir=str(folder), threads=1, device="cpu"), task=task):
        pass
    return storage / "baselines"


@pytest.fixture
def spared(tmp_path: Path, dense: Path, tables: Path) -> None:
    """Sweeps in ``tmp_path/sweeps`` find `SWEEP`'s baseline and, for the name tiny, MLflow's empty tables.

    Both take a sweep longer than its trials do. `test_run` has one that makes them.
    """
    (tmp_path / "sweeps" / "tiny").mkdir(parents=True)
    shutil.copy(tables, tmp_path / "sweeps" / "tiny" / "mlflow.db")
    shutil.copytree(dense, tmp_path / "sweeps" / "baselines")


@pytest.fixture
def write_sweep(tmp_path: Path) -> Callable[..., Path]:
    """Writes the small sweep file with changes: ``write_sweep(("training/lr", 0.1), ...)``."""

    def write(*changes: tuple[str, Any], name: str = "space.yaml") -> Path:
        mapping = SWEEP
        for path, value in changes:
            mapping = changed(mapping, path, value)
        file = tmp_path / name
        file.write_text(yaml.safe_dump(mapping, sort_keys=False))
        return file

    return write


@pytest.fixture
def sweep_here(
    raydistill: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """``raydistill sweep`` in ``tmp_path``, with a Ray of its own but in this process.

    What a process of its own takes to import Ray, MLflow and torch.export is half of what a small sweep takes.
    `test_run` has sweeps from the command line.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for modules of the tests in Ray's processes

    def sweep(*arguments: object, code: int = 0) -> str:
        ended = raydistill("sweep", *arguments)
        assert ended.code == code, ended.out + ended.err
        return ended.out + ended.err

    yield sweep
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(f"{tmp_path}/"):
            del sys.modules[name]  # another test has one of this name
