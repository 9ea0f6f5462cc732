"""Residual networks for 32x32 images: He et al. 2015 (arXiv 1512.03385), section 4.2.

A network of depth 6n + 2 has three stages of n basic blocks with 16, 32 and 64 filters; a stage's first block halves
the resolution. The first blocks of stages two and three project the shortcut by a 1x1 convolution (option B of the
paper), as the parameter names in Distiller's schedules have it (``layer2.0.downsample.0.weight``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; one ReLU module a use, so that each can be hooked by itself.

    gates: whether each of the two convolutions (with what follows it) is there; where neither is, the block gives twice
    its input, which is what networks with removed layers were trained with.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.gates = [True, True]
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1: nn.Module = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.relu2: nn.Module = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu1(self.bn1(self.conv1(x))) if self.gates[0] else x
        if self.gates[1]:
            out = self.bn2(self.conv2(out))
        return self.relu2(out + shortcut)


class ResNetCifar(nn.Module):
    """Input (B, 3, H, W) with H and W of at least 4, output (B, num_classes) logits; depth is 6 * blocks + 2.

    removed: convolutions in blocks that are left out (``layer1.0.conv1``); their weights stay, unused.
    """

    block: Callable[[int, int, int], nn.Module] = BasicBlock
    """What a stage is made of: called with the channels that come in, those that go out, and the stride."""

    def __init__(self, blocks: int, num_classes: int = 10, removed: Sequence[str] = ()) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = self._stage(16, 16, blocks, stride=1)
        self.layer2 = self._stage(16, 32, blocks, stride=2)
        self.layer3 = self._stage(32, 64, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for name in removed:
            self._close(name)

    def _close(self, name: str) -> None:
        path, _, layer = name.rpartition(".")
        found = dict(self.named_modules()).get(path)
        if not isinstance(found, BasicBlock) or layer not in ("conv1", "conv2"):
            raise ValueError(f"it has no layer {name!r} in a block that could be removed")
        which = 0 if layer == "conv1" else 1
        convolution = found.conv1 if which == 0 else found.conv2
        if convolution.in_channels != convolution.out_channels or convolution.stride != (1, 1):
            raise ValueError(f"{name!r} changes the shape and cannot be removed")
        found.gates[which] = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))

    def _stage(self, in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        block = type(self).block
        first = block(in_channels, channels, stride)
        return nn.Sequential(first, *(block(channels, channels, 1) for _ in range(blocks - 1)))
