"""Residual networks for 32x32 images with an early exit: BranchyNet (Teerapittayanon et al. 2016, arXiv 1709.01686).

A classifier stands on the third block of the first stage; parameter names are those of Distiller's checkpoints
(``layer1.2.relu2.branch_net.2.weight``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raydistill.models.resnet_cifar import BasicBlock, ResNetCifar

_EXIT_BLOCK = 2
"""Position in the first stage of the block whose output the exit reads."""


class BranchPoint(nn.Module):
    """A module and the branch that reads its output; the network calls the branch, so that no output is kept here."""

    def __init__(self, branched_module: nn.Module, branch_net: nn.Module) -> None:
        super().__init__()
        self.branched_module = branched_module
        self.branch_net = branch_net

    def forward(self, x: Tensor) -> Tensor:
        return self.branched_module(x)


class EarlyExitResNetCifar(ResNetCifar):
    """Input (B, 3, 32, 32), output a list: the exit's logits, then the network's, each (B, num_classes)."""

    def __init__(self, blocks: int, num_classes: int = 10) -> None:
        super().__init__(blocks, num_classes)
        exit_branch = nn.Sequential(nn.AvgPool2d(3), nn.Flatten(), nn.Linear(16 * 10 * 10, num_classes))
        block = self.layer1[_EXIT_BLOCK]
        assert isinstance(block, BasicBlock)
        block.relu2 = BranchPoint(block.relu2, exit_branch)

    def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
        x = self.relu(self.bn1(self.conv1(images)))
        exits = []
        for block in self.layer1:
            x = block(x)
            if isinstance(block.relu2, BranchPoint):
                exits.append(block.relu2.branch_net(x))
        x = self.layer3(self.layer2(x))
        return [*exits, self.fc(torch.flatten(self.avgpool(x), 1))]
