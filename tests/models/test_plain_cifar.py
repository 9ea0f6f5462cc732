"""Networks without shortcuts, against hand-worked counts and functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raydistill.models import create
from tests.models.conftest import Meta
from tests.models.norms import norm, shuffle_norms


# 432 + 6 * 2304 + (4608 + 5 * 9216) + (18432 + 5 * 36864) + 640 by hand, and what Distiller prints of plain20.
@pytest.mark.parametrize("arch", ["plain20_cifar", "plain20_cifar_nobn", "preact_resnet20_cifar"])
def test_twenty_layers_without_projections_have_268336_weights(meta: Meta, arch: str) -> None:
    assert meta.count(arch) == 432 + 6 * 2304 + (4608 + 5 * 9216) + (18432 + 5 * 36864) + 640 == 268_336


@pytest.mark.slow
def test_plain20_is_its_functions_one_after_the_other() -> None:
    torch.manual_seed(4)
    for arch in ("plain20_cifar", "plain20_cifar_nobn"):
        model = create(arch, 10).eval()
        shuffle_norms(model)
        x = images = torch.randn(2, 3, 32, 32)
        convolutions = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
        assert len(convolutions) == 19
        for name, conv in convolutions:
            x = F.conv2d(x, conv.weight, stride=2 if name in ("layer2.0.conv1", "layer3.0.conv1") else 1, padding=1)
            if "nobn" not in arch:
                x = norm(x, model.get_submodule(name.replace("conv", "bn")))
            x = x.clamp(min=0)
        assert x.shape == (2, 64, 8, 8)
        assert torch.allclose(model(images), F.linear(x.mean((2, 3)), model.fc.weight, model.fc.bias), atol=1e-4)
