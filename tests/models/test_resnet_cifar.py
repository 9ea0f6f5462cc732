"""The residual networks against the paper's table 6, and their names against schedule files that users have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raydistill.models import create


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_depth_and_size_are_those_of_the_paper(depth: int, millions: float) -> None:
    model = create(f"resnet{depth}_cifar", 10)
    on_the_path = [
        module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and "down" not in name
    ]
    assert len(on_the_path) == depth
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_stages_halve_the_resolution_and_double_the_filters() -> None:
    model = create("resnet20_cifar", 10).eval()
    x = model.relu(model.bn1(model.conv1(torch.zeros(1, 3, 32, 32))))
    shapes = []
    for stage in (model.layer1, model.layer2, model.layer3):
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_a_block_adds_its_projected_shortcut() -> None:
    torch.manual_seed(2)
    block = create("resnet20_cifar", 10).layer2[0].eval()
    x = torch.randn(2, 16, 8, 8)

    def batch_norm(value: torch.Tensor, bn: nn.BatchNorm2d) -> torch.Tensor:
        return F.batch_norm(value, bn.running_mean, bn.running_var, bn.weight, bn.bias)

    inner = batch_norm(F.conv2d(x, block.conv1.weight, stride=2, padding=1), block.bn1).clamp(min=0)
    inner = batch_norm(F.conv2d(inner, block.conv2.weight, padding=1), block.bn2)
    shortcut = batch_norm(F.conv2d(x, block.downsample[0].weight, stride=2), block.downsample[1])
    assert torch.allclose(block(x), (inner + shortcut).clamp(min=0), atol=1e-5)


def test_no_activation_module_is_used_twice() -> None:
    model = create("resnet32_cifar", 10).eval()
    calls: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1}))
    model(torch.zeros(1, 3, 32, 32))
    assert len(calls) == 31
    assert set(calls.values()) == {1}


@pytest.mark.slow
def test_every_weight_named_in_the_users_schedules_exists(compat: Path) -> None:
    names: dict[str, set[str]] = {"20": set(), "56": set()}
    for file in (compat / "distiller_schedules").rglob("*.y*ml"):
        depth = re.search(r"resnet(20|56)", file.name)
        if depth:
            text = re.sub(r"#.*", "", file.read_text())
            found = re.findall(r"(?:module\.)?((?:layer\d[\w.]*|conv1|fc)\.weight)", text)
            names[depth[1]].update(found)
    for depth_name, wanted in names.items():
        known = dict(create(f"resnet{depth_name}_cifar", 10).named_parameters())
        assert len(wanted) > 5
        assert wanted <= known.keys(), wanted - known.keys()


@pytest.mark.slow
def test_export_traces_it_and_channels_last_changes_nothing() -> None:
    torch.manual_seed(3)
    model = create("resnet20_cifar", 10).eval()
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    assert torch.allclose(torch.export.export(model, (images,)).module()(images), expected, atol=1e-4)
    last = model.to(memory_format=torch.channels_last)
    assert torch.allclose(last(images.to(memory_format=torch.channels_last)), expected, atol=1e-4)
