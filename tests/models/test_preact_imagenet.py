"""Pre-activation ResNets for ImageNet, against torchvision's weights and functions."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raydistill.models.preact_imagenet import PreactBasicBlock, PreactBottleneck
from tests.models.conftest import Meta
from tests.models.norms import norm, shuffle_norms


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_preact_resnets_have_the_weights_of_torchvisions_resnets(meta: Meta, depth: int) -> None:
    """The order of norm, ReLU and convolution differs, the convolutions do not."""
    ours, theirs = meta.weights(f"preact_resnet{depth}"), meta.weights(f"resnet{depth}")
    assert Counter(ours.values()) == Counter(theirs.values())
    assert {name for name in ours if "downsample" not in name} == {n for n in theirs if "downsample" not in n}
    assert not isinstance(meta(f"preact_resnet{depth}").layer1[0].pre_bn, nn.BatchNorm2d)


def test_preact_blocks_are_their_functions() -> None:
    torch.manual_seed(2)
    x = torch.randn(2, 8, 6, 6)
    basic = PreactBasicBlock(8, 16, 2, preactivate=True).eval()
    wide = PreactBottleneck(8, 4, 1, preactivate=False).eval()
    shuffle_norms(basic)
    shuffle_norms(wide)
    preact = norm(x, basic.pre_bn).clamp(min=0)
    inner = norm(F.conv2d(preact, basic.conv1.weight, stride=2, padding=1), basic.bn1_2).clamp(min=0)
    shortcut = F.conv2d(preact, basic.downsample[0].weight, stride=2)
    assert torch.allclose(basic(x), F.conv2d(inner, basic.conv2.weight, padding=1) + shortcut, atol=1e-5)
    inner = norm(F.conv2d(x, wide.conv1.weight), wide.bn1_2).clamp(min=0)
    inner = norm(F.conv2d(inner, wide.conv2.weight, padding=1), wide.bn2_3).clamp(min=0)
    shortcut = F.conv2d(x, wide.downsample[0].weight)
    assert torch.allclose(wide(x), F.conv2d(inner, wide.conv3.weight) + shortcut, atol=1e-5)
