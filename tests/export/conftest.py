"""Checkpoints to export: a trained one, pruned by filters, and the dense one it began with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raydistill.compression.quantizers import QuantAwareTrainRangeLinearQuantizer, quantization_of
from raydistill.compression.structure import Quantized, structure_state
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


@pytest.fixture(scope="session")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a network that is pruned by filters and quantized, as training might leave it."""
    torch.manual_seed(0)
    model = pruned("resnet20_cifar", 0.4, 0)
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    quantizer = QuantAwareTrainRangeLinearQuantizer("q", 8, 8, per_channel_wts=True, ema_decay=0.0)
    change = Quantized(quantizer.plan(model, (images[:2],)))
    change.apply(model)
    modes = {module: module.training for module in model.modules()}
    quantization_of(model).train()  # type: ignore[union-attr]
    model(images)
    for module, training in modes.items():
        module.training = training
    said = {"structure": structure_state([change]), "model": model.state_dict()}
    return keep(tmp_path_factory.mktemp("rounded") / "checkpoint.pt", "resnet20_cifar", **said)
