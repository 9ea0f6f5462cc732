"""The small network that several rooms' tests share."""

from __future__ import annotations

import torch
from torch import nn


class TwoLayers(nn.Module):
    """conv (4, 3, 3, 3), batch norm, fc (10, 4): 148 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.bn(self.conv(images))).mean((2, 3)))
