"""Pre-activation residual networks for ImageNet: He et al. 2016 (arXiv 1603.05027).

The first block of the first stage has no pre-activation of its own: the stem's batch norm and ReLU serve it. The
shortcut of a block that changes shape is a 1x1 convolution of the pre-activation, without batch norm.
"""

from __future__ import annotations

import torch
from torch import nn


class _PreactBlock(nn.Module):
    """What both kinds of block share: the pre-activation, the shortcut and the sum."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, preactivate: bool) -> None:
        super().__init__()
        self.pre_bn = nn.BatchNorm2d(in_channels) if preactivate else nn.Identity()
        self.pre_relu = nn.ReLU() if preactivate else nn.Identity()
        self._add_residual(in_channels, channels, stride)
        self.downsample: nn.Module | None = None
        out_channels = channels * self.expansion
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False))

    def _add_residual(self, in_channels: int, channels: int, stride: int) -> None:
        raise NotImplementedError

    def residual(self, preact: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        preact = self.pre_relu(self.pre_bn(x))
        shortcut = x if self.downsample is None else self.downsample(preact)
        return self.residual(preact) + shortcut


class PreactBasicBlock(_PreactBlock):
    """Two 3x3 convolutions."""

    def _add_residual(self, in_channels: int, channels: int, stride: int) -> None:
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1_2 = nn.BatchNorm2d(channels)
        self.relu1_2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def residual(self, preact: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.relu1_2(self.bn1_2(self.conv1(preact))))


class PreactBottleneck(_PreactBlock):
    """1x1 to narrow, 3x3 (with the stride), 1x1 to widen fourfold."""

    expansion = 4

    def _add_residual(self, in_channels: int, channels: int, stride: int) -> None:
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1_2 = nn.BatchNorm2d(channels)
        self.relu1_2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2_3 = nn.BatchNorm2d(channels)
        self.relu2_3 = nn.ReLU()
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)

    def residual(self, preact: torch.Tensor) -> torch.Tensor:
        out = self.relu1_2(self.bn1_2(self.conv1(preact)))
        return self.conv3(self.relu2_3(self.bn2_3(self.conv2(out))))


class PreactResNet(nn.Module):
    """Input (B, 3, H, W), output (B, num_classes) logits; `blocks` in each of the four stages."""

    def __init__(self, block: type[_PreactBlock], blocks: tuple[int, int, int, int], num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu1 = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        wide = block.expansion
        self.layer1 = _stage(block, 64, 64, blocks[0], 1)
        self.layer2 = _stage(block, 64 * wide, 128, blocks[1], 2)
        self.layer3 = _stage(block, 128 * wide, 256, blocks[2], 2)
        self.layer4 = _stage(block, 256 * wide, 512, blocks[3], 2)
        self.final_bn = nn.BatchNorm2d(512 * wide)
        self.final_relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * wide, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu1(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.final_relu(self.final_bn(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _stage(block: type[_PreactBlock], in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = block(in_channels, channels, stride, stride != 1)
    out_channels = channels * block.expansion
    return nn.Sequential(first, *(block(out_channels, channels, 1, True) for _ in range(blocks - 1)))
