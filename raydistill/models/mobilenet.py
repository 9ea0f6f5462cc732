"""MobileNet, version 1: Howard et al. 2017 (arXiv 1704.04861), table 1."""

from __future__ import annotations

import torch
from torch import nn

from raydistill.errors import ConfigError, Fault

_CHANNELS = (32, 64, 128, 256, 512, 1024)
# Of each depthwise separable block: positions in _CHANNELS of its input and output, and its stride.
_BLOCKS = ((0, 1, 1), (1, 2, 2), (2, 2, 1), (2, 3, 2), (3, 3, 1), (3, 4, 2), *[(4, 4, 1)] * 5, (4, 5, 2), (5, 5, 1))


class MobileNet(nn.Module):
    """Input (B, 3, H, W) with H and W of at least 32, output (B, num_classes) logits.

    width: factor on every number of channels, at least 8 of which are kept (the paper's alpha).
    """

    def __init__(self, width: float = 1.0, num_classes: int = 1000) -> None:
        super().__init__()
        if not width > 0:
            raise ConfigError(Fault("width", "must be above 0", width))
        channels = [max(int(count * width), 8) for count in _CHANNELS]
        blocks = [_separable(channels[i], channels[o], stride) for i, o, stride in _BLOCKS]
        stem = nn.Sequential(*_conv_bn_relu(3, channels[0], 3, 2))
        self.model = nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1))
        self.fc = nn.Linear(channels[-1], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.model(images), 1))


def _conv_bn_relu(in_channels: int, channels: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(channels), nn.ReLU()]


def _separable(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    depthwise = _conv_bn_relu(in_channels, in_channels, 3, stride, groups=in_channels)
    return nn.Sequential(*depthwise, *_conv_bn_relu(in_channels, channels, 1, 1))
