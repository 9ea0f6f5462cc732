"""ResNet-50 with two early exits (BranchyNet, arXiv 1709.01686), on torchvision's ResNet and Distiller's names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet


class EarlyExitResNet50(ResNet):
    """Input (B, 3, 224, 224), output a list: logits of the exits after stages one and two, then the network's."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3], num_classes=num_classes)
        self.exit_pool = nn.AvgPool2d(7, stride=1)
        self.conv1_exit0 = nn.Conv2d(256, 50, 7, stride=2, padding=3)
        self.conv2_exit0 = nn.Conv2d(50, 12, 7, stride=2, padding=3)
        self.conv1_exit1 = nn.Conv2d(512, 12, 7, stride=2, padding=3)
        self.fc_exit0 = nn.Linear(12 * 7 * 7, num_classes)
        self.fc_exit1 = nn.Linear(12 * 8 * 8, num_classes)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer1(x)  # 56x56, pooled to 50, by the two convolutions to 13, pooled to 7
        exit0 = self.exit_pool(self.conv2_exit0(self.conv1_exit0(self.exit_pool(x))))
        x = self.layer2(x)  # 28x28, by the convolution to 14, pooled to 8
        exit1 = self.exit_pool(self.conv1_exit1(x))
        x = self.avgpool(self.layer4(self.layer3(x)))
        return [
            self.fc_exit0(torch.flatten(exit0, 1)),
            self.fc_exit1(torch.flatten(exit1, 1)),
            self.fc(torch.flatten(x, 1)),
        ]
