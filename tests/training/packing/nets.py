"""Networks of float64, in which a trial of several can be held against the same trial by itself to the last digits:
in float32 a network that is trained doubles what rounding adds in every few steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Tiny(nn.Module):
    """Images to 8x8, conv (6, 3, 3, 3), batch norm, conv (8, 6, 3, 3), fc1 (16, 8), fc2 (classes, 16)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3)
        self.fc1 = nn.Linear(8, 16)
        self.fc2 = nn.Linear(16, classes)
        self.double()

    def features(self, images: Tensor) -> Tensor:
        x = functional.avg_pool2d(images.double(), 4)
        x = torch.relu(self.norm(self.conv1(x)))
        return torch.relu(self.conv2(x)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(self.features(images))))


class Mixing(Tiny):
    """Its softmax is over all channels it is given: networks side by side would be one."""

    def features(self, images: Tensor) -> Tensor:
        return torch.softmax(super().features(images), 1)


class Dropping(Tiny):
    def features(self, images: Tensor) -> Tensor:
        return functional.dropout(super().features(images), 0.2, self.training)


class Deciding(Tiny):
    """What it computes depends on the data."""

    def features(self, images: Tensor) -> Tensor:
        x = super().features(images)
        return x * 2 if float(x.detach().mean()) > 0 else x


class Single(Tiny):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.float()

    def features(self, images: Tensor) -> Tensor:
        x = functional.avg_pool2d(images, 4)
        x = torch.relu(self.norm(self.conv1(x)))
        return torch.relu(self.conv2(x)).mean((2, 3))


def tiny(num_classes: int = 10) -> nn.Module:
    return Tiny(num_classes)


def mixing(num_classes: int = 10) -> nn.Module:
    return Mixing(num_classes)


def dropping(num_classes: int = 10) -> nn.Module:
    return Dropping(num_classes)


def deciding(num_classes: int = 10) -> nn.Module:
    return Deciding(num_classes)


def single(num_classes: int = 10) -> nn.Module:
    return Single(num_classes)


class Wide(Tiny):
    """Its first layer gives (B, 64, 32, 32): 32 MB for a batch of 64, twice over."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.wide = nn.Conv2d(3, 64, 1).double()
        self.narrow = nn.Conv2d(64, 3, 1).double()

    def features(self, images: Tensor) -> Tensor:
        return super().features(self.narrow(torch.tanh(self.wide(images.double()))))


def wide(num_classes: int = 10) -> nn.Module:
    return Wide(num_classes)
