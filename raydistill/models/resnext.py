"""ResNeXt-101 (32x4d): Xie et al. 2017 (arXiv 1611.05431), with the numbered layers of its Torch7 original.

Parameter names are those of the port that Distiller's users have (``features.4.0.0.0.0.3.weight``, ``last_linear``).
Counting from the left after ``features``: stage (4 to 7), block, then 0 for the block's two paths, then 0 for the
residual path or 1 for the shortcut; in the residual path 0 holds the first two convolutions, 1 and 2 the last one and
its batch norm.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_GROUPS = 32


class _Block(nn.Sequential):
    """Paths (residual, shortcut), a place that holds nothing (their sum in the original), and the ReLU of the sum."""

    def __init__(self, in_channels: int, width: int, channels: int, stride: int) -> None:
        residual = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(in_channels, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=_GROUPS, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ),
            nn.Conv2d(width, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )
        super().__init__(nn.ModuleList([residual, shortcut]), nn.Identity(), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        paths: Any = self[0]
        return self[2](paths[0](x) + paths[1](x))


class ResNeXt101(nn.Module):
    """Input (B, 3, H, W), output (B, num_classes) logits."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
            _stage(64, 128, 3, stride=1),
            _stage(256, 256, 4, stride=2),
            _stage(512, 512, 23, stride=2),
            _stage(1024, 1024, 3, stride=2),
        )
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.last_linear = nn.Linear(2048, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last_linear(torch.flatten(self.avg_pool(self.features(images)), 1))


def _stage(in_channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    """width: channels of the grouped convolutions; the stage gives twice as many."""
    first = _Block(in_channels, width, 2 * width, stride)
    return nn.Sequential(first, *(_Block(2 * width, width, 2 * width, 1) for _ in range(blocks - 1)))
