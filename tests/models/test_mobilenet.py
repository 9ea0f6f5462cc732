"""MobileNet, against the paper's sizes and functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raydistill.errors import ConfigError
from raydistill.models import create
from raydistill.models.mobilenet import MobileNet
from tests.models.conftest import Meta
from tests.models.norms import norm, shuffle_norms


@pytest.mark.parametrize(
    ("arch", "millions"), [("mobilenet", 4.2), ("mobilenet_075", 2.6), ("mobilenet_050", 1.3), ("mobilenet_025", 0.5)]
)
def test_mobilenet_sizes_are_those_of_the_paper(meta: Meta, arch: str, millions: float) -> None:
    assert round(sum(p.numel() for p in meta(arch).parameters()) / 1e6, 1) == millions
    assert len(meta.weights(arch)) == 28


def test_mobilenet_has_the_4209088_weights_that_distiller_prints(meta: Meta) -> None:
    assert meta.count("mobilenet") == 4_209_088
    assert meta.weights("mobilenet")["model.13.3.weight"] == (1024, 1024, 1, 1)


def test_mobilenet_is_its_functions_one_after_the_other() -> None:
    torch.manual_seed(1)
    model = create("mobilenet_025", 6).eval()
    shuffle_norms(model)
    x = images = torch.randn(2, 3, 64, 64)
    strides = iter([2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1])  # of the stem, then of the depthwise convolutions
    modules = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    for conv, bn in zip(modules[::2], modules[1::2], strict=True):
        spatial = conv.weight.shape[2] == 3
        groups = x.shape[1] if conv.weight.shape[1] == 1 else 1
        x = F.conv2d(x, conv.weight, stride=next(strides) if spatial else 1, padding=int(spatial), groups=groups)
        x = norm(x, bn).clamp(min=0)
    assert x.shape == (2, 256, 2, 2)
    assert torch.allclose(model(images), F.linear(x.mean((2, 3)), model.fc.weight, model.fc.bias), atol=1e-5)


def test_mobilenet_keeps_eight_channels_and_refuses_a_width_of_zero() -> None:
    with torch.device("meta"):
        assert MobileNet(0.01).fc.in_features == 10
        assert MobileNet(0.001).fc.in_features == 8
    with pytest.raises(ConfigError, match=r"model.arch mobilenet\(width\): must be above 0, got 0"):
        create("mobilenet", 10, {"width": 0})
