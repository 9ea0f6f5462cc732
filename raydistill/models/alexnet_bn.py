"""AlexNet with batch norm, as DoReFa-Net trains it: Zhou et al. 2016 (arXiv 1606.06160)."""

from __future__ import annotations

import torch
from torch import nn


class AlexNetBN(nn.Module):
    """Input (B, 3, H, W), made for 224 and good from 64 up, output (B, num_classes) logits.

    Only the first convolution and the last linear layer have a bias: batch norm follows all others.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 12, stride=4),  # 224 -> 54
            nn.ReLU(),
            nn.Conv2d(96, 256, 5, padding=2, groups=2, bias=False),
            _norm2d(256),
            nn.MaxPool2d(3, stride=2, ceil_mode=True),  # 54 -> 27
            nn.ReLU(),
            nn.Conv2d(256, 384, 3, padding=1, bias=False),
            _norm2d(384),
            nn.MaxPool2d(3, stride=2, padding=1),  # 27 -> 14
            nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2, bias=False),
            _norm2d(384),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2, bias=False),
            _norm2d(256),
            nn.MaxPool2d(3, stride=2),  # 14 -> 6
            nn.ReLU(),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)  # changes nothing at 224
        self.classifier = nn.Sequential(
            nn.Linear(256 * 6 * 6, 4096, bias=False),
            _norm1d(4096),
            nn.ReLU(),
            nn.Linear(4096, 4096, bias=False),
            _norm1d(4096),
            nn.ReLU(),
            nn.Linear(4096, num_classes),
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))


def _norm2d(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-4, momentum=0.9)


def _norm1d(features: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(features, eps=1e-4, momentum=0.9)
