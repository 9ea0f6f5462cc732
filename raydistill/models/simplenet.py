"""SimpleNet: two convolutions and three fully connected layers for 3x32x32 images, 61,770 weights with ten classes."""

from __future__ import annotations

import torch
from torch import nn


class SimpleNet(nn.Module):
    """Input (B, 3, 32, 32), output (B, num_classes) logits. Parameter names are those of Distiller's schedules."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.relu_conv1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.relu_conv2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.relu_fc1 = nn.ReLU()
        self.fc2 = nn.Linear(120, 84)
        self.relu_fc2 = nn.ReLU()
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # max commutes with relu: pooling first gives the same values and gradients from a quarter of the relu's work
        x = self.relu_conv1(self.pool1(self.conv1(images)))
        x = self.relu_conv2(self.pool2(self.conv2(x)))
        # flatten reads (C, H, W) whatever the memory format is, so channels_last gives the same features
        x = torch.flatten(x, 1)
        x = self.relu_fc1(self.fc1(x))
        x = self.relu_fc2(self.fc2(x))
        return self.fc3(x)


def simplenet_cifar(num_classes: int = 10) -> SimpleNet:
    return SimpleNet(num_classes)
