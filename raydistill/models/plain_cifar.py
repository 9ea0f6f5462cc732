"""Plain networks for 32x32 images: the residual networks of He et al. 2015 (arXiv 1512.03385) without shortcuts."""

from __future__ import annotations

import torch
from torch import nn

from raydistill.models.resnet_cifar import ResNetCifar


class PlainBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm and ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)))


class PlainCifar(ResNetCifar):
    """Input (B, 3, H, W), output (B, num_classes) logits; depth is 6 * blocks + 2.

    batch_norm: False leaves all batch norms out; the convolutions have no bias either way.
    """

    block = PlainBlock

    def __init__(self, blocks: int, num_classes: int = 10, batch_norm: bool = True) -> None:
        super().__init__(blocks, num_classes)
        if batch_norm:
            return
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, nn.Identity())
