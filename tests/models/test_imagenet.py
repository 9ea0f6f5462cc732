"""MobileNet, AlexNet with batch norm, pre-activation ResNets, ResNeXt and early exits for ImageNet."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from raydistill.errors import ConfigError
from raydistill.models import create
from raydistill.models.mobilenet import MobileNet
from raydistill.models.preact_imagenet import PreactBasicBlock, PreactBottleneck
from tests.models.conftest import Meta
from tests.models.test_cifar import norm, shuffle_norms


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


def test_alexnet_with_batch_norm_by_hand(meta: Meta) -> None:
    by_hand = {
        "features.0.weight": 96 * 3 * 12 * 12,
        "features.2.weight": 256 * 48 * 25,
        "features.6.weight": 384 * 256 * 9,
        "features.10.weight": 384 * 192 * 9,
        "features.13.weight": 256 * 192 * 9,
        "classifier.0.weight": 4096 * 9216,
        "classifier.3.weight": 4096 * 4096,
        "classifier.6.weight": 1000 * 4096,
    }
    model = meta("alexnet_bn")
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.dim() > 1}
    assert sizes == by_hand
    biases = [name for name, m in model.named_modules() if getattr(m, "bias", None) is not None]
    assert [b for b in biases if not isinstance(model.get_submodule(b), (nn.BatchNorm1d, nn.BatchNorm2d))] == [
        "features.0",
        "classifier.6",
    ]
    sides = {}
    for i, layer in enumerate(model.features):
        layer.register_forward_hook(lambda m, x, y, i=i: sides.update({i: y.shape[2]}))
    assert model(torch.zeros(2, 3, 224, 224, device="meta")).shape == (2, 1000)
    assert [sides[i] for i in (0, 4, 8, 16)] == [54, 27, 14, 6]


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


@pytest.mark.slow
def test_resnext_computes_what_torchvisions_resnet_of_its_shape_computes(meta: Meta) -> None:
    torch.manual_seed(3)
    ours = create("resnext101_32x4d", 10).eval()
    shuffle_norms(ours)
    with torch.device("meta"):
        theirs = ResNet(Bottleneck, [3, 4, 23, 3], num_classes=10, groups=32, width_per_group=4)
    state = dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True))
    theirs.load_state_dict(state, assign=True)
    images = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        a, b = ours(images), theirs.eval()(images)
    assert float(a.std()) > 0
    assert torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
    assert meta.count("resnext101_32x4d") == 44_038_848  # as the schedule's comment has it


@pytest.mark.slow
def test_early_exits_of_resnet50_stand_on_torchvisions_network() -> None:
    torch.manual_seed(4)
    model = create("resnet50_earlyexit", 5).eval()
    plain = torchvision.models.resnet50(num_classes=5).eval()
    added = plain.load_state_dict(model.state_dict(), strict=False)
    assert not added.missing_keys
    assert {name.split(".")[0] for name in added.unexpected_keys} == {
        "conv1_exit0",
        "conv2_exit0",
        "conv1_exit1",
        "fc_exit0",
        "fc_exit1",
    }
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        exit0, exit1, last = model(images)
        assert torch.allclose(last, plain(images), atol=1e-5)
        x = plain.layer1(plain.maxpool(plain.relu(plain.bn1(plain.conv1(images)))))
        y = F.avg_pool2d(x, 7, stride=1)
        y = F.conv2d(y, model.conv1_exit0.weight, model.conv1_exit0.bias, stride=2, padding=3)
        y = F.conv2d(y, model.conv2_exit0.weight, model.conv2_exit0.bias, stride=2, padding=3)
        y = F.avg_pool2d(y, 7, stride=1)
        assert y.numel() == 147 * 4
        assert torch.allclose(exit0, F.linear(y.flatten(1), model.fc_exit0.weight, model.fc_exit0.bias), atol=1e-5)
        y = F.conv2d(plain.layer2(x), model.conv1_exit1.weight, model.conv1_exit1.bias, stride=2, padding=3)
        y = F.avg_pool2d(y, 7, stride=1)
        assert y.numel() == 192 * 4
        assert torch.allclose(exit1, F.linear(y.flatten(1), model.fc_exit1.weight, model.fc_exit1.bias), atol=1e-5)
