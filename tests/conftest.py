"""What several rooms' tests share: a small model, MLflow's tables, and the folder of inputs to be compatible with."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
COMPAT = ROOT.parent / "shared" / "compat"

# One thread here and in what tests start: small tensors gain nothing from a second, which waits by spinning. On two
# busy cores that is half of all the time.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the whole suite; none where files or tests are named, which are quicker than two imports."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS or config.option.keyword
    return 0 if named else min(2, len(os.sched_getaffinity(0)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In several processes: a file's tests in one of them, for what they share; networks of this machine in one too.

    The longest files come first, so that none is left over at the end.
    """
    if not hasattr(config, "workerinput"):
        return
    for item in items:
        group = "cluster" if item.get_closest_marker("cluster") else str(item.path.relative_to(ROOT))
        item.add_marker(pytest.mark.xdist_group(group))
    long = {item.path for item in items if item.get_closest_marker("ray")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    """What is imported by now stays; looking through it again and again for garbage is a tenth of the quick tests."""
    gc.collect()
    gc.freeze()


class TwoLayers(nn.Module):
    """conv (4, 3, 3, 3), batch norm, fc (10, 4): 148 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.bn(self.conv(images))).mean((2, 3)))


@pytest.fixture
def model() -> TwoLayers:
    torch.manual_seed(0)
    return TwoLayers()


@pytest.fixture(scope="session")
def compat() -> Path:
    if not COMPAT.is_dir():
        pytest.skip("the folder of inputs to be compatible with is not beside this checkout")
    return COMPAT


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them: making them takes 4 s, so once."""
    path = tmp_path_factory.mktemp("tables") / "mlflow.db"
    from raydistill.tracking.store import hush, undisturbed

    with undisturbed():
        from mlflow import MlflowClient

        hush()
        MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path
