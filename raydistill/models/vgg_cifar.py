"""VGG for 32x32 images: the convolutions of Simonyan and Zisserman 2014 (arXiv 1409.1556), one linear classifier."""

from __future__ import annotations

import torch
from torch import nn

# Convolutions before each of the five poolings, and the filters each has.
_FILTERS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGGCifar(nn.Module):
    """Input (B, 3, H, W) with H and W of at least 32, output (B, num_classes) logits. depth: 11, 13, 16 or 19."""

    def __init__(self, depth: int, num_classes: int = 10, batch_norm: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(*_features(depth, batch_norm))
        self.avgpool = nn.AdaptiveAvgPool2d(1)  # changes nothing at 32x32
        self.classifier = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))


def _features(depth: int, batch_norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    in_channels = 3
    for filters, convolutions in zip(_FILTERS, _CONVOLUTIONS[depth], strict=True):
        for _ in range(convolutions):
            layers.append(nn.Conv2d(in_channels, filters, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(filters))
            layers.append(nn.ReLU())
            in_channels = filters
        layers.append(nn.MaxPool2d(2))
    return layers
