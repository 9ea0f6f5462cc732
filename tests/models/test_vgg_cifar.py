"""VGG for 32x32 images, against the paper's table and functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raydistill.models import create
from tests.models.conftest import Meta


# 9 * (sum of in * out of its convolutions) + 512 * 10, worked by hand from table 1 of the paper
@pytest.mark.parametrize(("depth", "weights"), [(11, 9_222_848), (13, 9_407_168), (16, 14_715_584), (19, 20_024_000)])
def test_vgg_has_the_papers_convolutions_and_one_classifier(meta: Meta, depth: int, weights: int) -> None:
    model = meta(f"vgg{depth}_cifar")
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == depth - 3
    assert meta.count(f"vgg{depth}_cifar") == weights
    with_norms = meta(f"vgg{depth}_bn_cifar")
    assert meta.count(f"vgg{depth}_bn_cifar") == weights
    norms = [m for m in with_norms.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m.num_features for m in norms] == [m.out_channels for m in convolutions]


@pytest.mark.slow
def test_vgg16_layers_stand_where_the_schedules_say_and_compute_as_functions() -> None:
    torch.manual_seed(8)
    model = create("vgg16_cifar", 10).eval()
    positions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert [i for i, m in enumerate(model.features) if isinstance(m, nn.Conv2d)] == positions
    x = images = torch.randn(2, 3, 32, 32)
    for i in positions:
        x = F.conv2d(x, model.features[i].weight, model.features[i].bias, padding=1).clamp(min=0)
        if i in (2, 7, 14, 21, 28):
            x = F.max_pool2d(x, 2)
    assert x.shape == (2, 512, 1, 1)
    expected = F.linear(x.flatten(1), model.classifier.weight, model.classifier.bias)
    assert torch.allclose(model(images), expected, atol=1e-5)
