"""What several rooms' tests share: a small model, and the folder of inputs to be compatible with."""

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
