"""Pre-activation residual networks for 32x32 images: He et al. 2016 (arXiv 1603.05027).

Where a stage halves the resolution, the shortcut is average pooling and zero channels on both sides (no parameters),
or, in the ``_conv_ds`` variants, a 1x1 convolution of the pre-activation.
"""

from __future__ import annotations

import torch
from torch import nn


class PreactBlock(nn.Module):
    """Batch norm and ReLU stand before each of the two 3x3 convolutions; nothing follows the sum."""

    def __init__(self, in_channels: int, channels: int, stride: int, conv_downsample: bool) -> None:
        super().__init__()
        self.pre_bn = nn.BatchNorm2d(in_channels)
        self.pre_relu = nn.ReLU()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.downsample: nn.Module | None = None
        self.preact_downsample = conv_downsample
        if stride != 1 or in_channels != channels:
            self.downsample = _downsample(in_channels, channels, stride, conv_downsample)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        preact = self.pre_relu(self.pre_bn(x))
        out = self.conv2(self.relu(self.bn(self.conv1(preact))))
        if self.downsample is None:
            return out + x
        return out + self.downsample(preact if self.preact_downsample else x)


class PreactResNetCifar(nn.Module):
    """Input (B, 3, H, W), output (B, num_classes) logits; depth is 6 * blocks + 2."""

    def __init__(self, blocks: int, num_classes: int = 10, conv_downsample: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.layer1 = _stage(16, 16, blocks, 1, conv_downsample)
        self.layer2 = _stage(16, 32, blocks, 2, conv_downsample)
        self.layer3 = _stage(32, 64, blocks, 2, conv_downsample)
        self.final_bn = nn.BatchNorm2d(64)
        self.final_relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        x = self.final_relu(self.final_bn(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def _stage(in_channels: int, channels: int, blocks: int, stride: int, conv_downsample: bool) -> nn.Sequential:
    first = PreactBlock(in_channels, channels, stride, conv_downsample)
    return nn.Sequential(first, *(PreactBlock(channels, channels, 1, conv_downsample) for _ in range(blocks - 1)))


def _downsample(in_channels: int, channels: int, stride: int, conv_downsample: bool) -> nn.Module:
    if conv_downsample:
        return nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
    before = (channels - in_channels) // 2
    after = channels - in_channels - before
    # ceil_mode: a strided 3x3 convolution with padding 1 rounds an odd size up
    return nn.Sequential(nn.AvgPool2d(stride, ceil_mode=True), nn.ConstantPad3d((0, 0, 0, 0, before, after), 0.0))
