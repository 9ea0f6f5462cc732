"""Pre-activation networks for 32x32 images, against hand-worked counts and functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from raydistill.models import create
from tests.models.conftest import Meta
from tests.models.norms import norm, shuffle_norms


@pytest.mark.slow
@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_depths_and_projections_of_the_residual_networks(meta: Meta, depth: int) -> None:
    n = (depth - 2) // 6
    stages = 2 * n * 2304 + (4608 + (2 * n - 1) * 9216) + (18432 + (2 * n - 1) * 36864)
    without = 432 + stages + 640
    projections = 16 * 32 + 32 * 64
    assert meta.count(f"preact_resnet{depth}_cifar") == without
    assert meta.count(f"preact_resnet{depth}_cifar_conv_ds") == without + projections
    assert meta.count(f"resnet{depth}_cifar") == without + projections
    assert meta.count(f"resnet{depth}_cifar_earlyexit") == without + projections + 16_000


@pytest.mark.parametrize("arch", ["preact_resnet20_cifar", "preact_resnet20_cifar_conv_ds"])
def test_a_preact_block_that_halves_the_resolution(arch: str) -> None:
    torch.manual_seed(5)
    model = create(arch, 10).eval()
    shuffle_norms(model)
    block = model.layer2[0]
    x = torch.randn(2, 16, 8, 8)
    preact = norm(x, block.pre_bn).clamp(min=0)
    inner = norm(F.conv2d(preact, block.conv1.weight, stride=2, padding=1), block.bn).clamp(min=0)
    inner = F.conv2d(inner, block.conv2.weight, padding=1)
    if arch.endswith("conv_ds"):
        shortcut = F.conv2d(preact, block.downsample.weight, stride=2)
    else:  # each 2x2 square's mean, between eight empty channels and eight more; not pre-activated
        shortcut = torch.zeros(2, 32, 4, 4)
        shortcut[:, 8:24] = x.reshape(2, 16, 4, 2, 4, 2).mean((3, 5))
    assert torch.allclose(block(x), inner + shortcut, atol=1e-5)
    same = model.layer2[1]
    y = torch.randn(2, 32, 4, 4)
    inner = norm(F.conv2d(norm(y, same.pre_bn).clamp(min=0), same.conv1.weight, padding=1), same.bn).clamp(min=0)
    assert torch.allclose(same(y), F.conv2d(inner, same.conv2.weight, padding=1) + y, atol=1e-5)


def test_a_preact_network_takes_odd_sizes_and_ends_in_norm_and_relu() -> None:
    torch.manual_seed(6)
    model = create("preact_resnet20_cifar", 10).eval()
    shuffle_norms(model)
    images = torch.randn(2, 3, 21, 21)
    x = model.layer3(model.layer2(model.layer1(F.conv2d(images, model.conv1.weight, padding=1))))
    assert x.shape == (2, 64, 6, 6)
    features = norm(x, model.final_bn).clamp(min=0).mean((2, 3))
    assert torch.allclose(model(images), F.linear(features, model.fc.weight, model.fc.bias), atol=1e-5)
