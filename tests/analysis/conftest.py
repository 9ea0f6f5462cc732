from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raydistill.analysis.network import Network, read_network
from raydistill.datasets import DatasetConfig, load
from raydistill.schedule import parse_schedule
from raydistill.tasks import Loading
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit

FILTERS = {
    "version": 1,
    "pruners": {
        "filters": {
            "class": "L1RankedStructureParameterPruner", "group_type": "Filters", "desired_sparsity": 0.5,
            "weights": ["conv2.weight"],
        }
    },
    "policies": [{"pruner": {"instance_name": "filters"}, "epochs": [0]}],
}  # fmt: skip


@pytest.fixture(scope="session")
def task() -> Classification:
    return Classification(load(DatasetConfig("digits")))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """simplenet on digits, half of the filters of conv2 pruned; its checkpoint."""
    return _trained(tmp_path_factory.getbasetemp() / "trained-once")


@functools.cache
def _trained(folder: Path) -> Path:
    """Once, though each folder that takes the fixture from here has one of its own."""
    run = RunConfig(
        "simplenet_cifar", DatasetConfig("digits"), epochs=3, batch_size=128, lr=0.05, deterministic=True, threads=1,
        tensorboard=False, device="cpu", precision="fp32", schedule=parse_schedule(FILTERS, "filters"),
    )  # fmt: skip
    task = Classification(load(DatasetConfig("digits")))
    *_, last = fit(replace(run, out_dir=str(folder)), task=task)
    return Path(str(last.checkpoint))


@pytest.fixture
def network(trained: Path) -> Network:
    return read_network(trained)


@pytest.fixture
def loading() -> Loading:
    return Loading(torch.device("cpu"), 64)
