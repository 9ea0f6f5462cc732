"""Checkpoints to export: a trained one, pruned by filters, and the dense one it began with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raydistill.models import MENU
from raydistill.training.checkpoint import write_checkpoint
from tests.analysis.conftest import task, trained  # noqa: F401 - fixtures
from tests.compression.structure.test_thinned import pruned

SEEN = {"mean": [0.5] * 3, "std": [0.25] * 3, "image_size": [32, 32]}
CLASSES = [f"class {index}" for index in range(10)]


def keep(path: Path, arch: str, share: float = 0.4, **said: object) -> Path:
    """A checkpoint of an untrained network, some of its filters zero, its batch norms as training might leave them."""
    torch.manual_seed(0)
    model = pruned(arch, share, 0) if share else MENU[arch]()
    content = {
        "run": {"arch": arch, "model_args": {}},
        "num_classes": 10,
        "classes": CLASSES,
        "preprocessing": SEEN,
        "image_shape": [3, 32, 32],
        "precision": "fp32",
        "structure": [],
        "model": model.state_dict(),
    }
    write_checkpoint(path, {**content, **said})
    return path


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keep(tmp_path_factory.mktemp("resnet") / "checkpoint.pt", "resnet20_cifar")
