"""A network of tokens: its linear layers read three dimensions, of which the trace does not know how they lie."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Tokens(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.norm = nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16)
        self.wide, self.narrow, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = tokens + self.narrow(functional.gelu(self.wide(self.norm(tokens).transpose(0, 1)))).transpose(0, 1)
        return self.head(tokens.mean(1))
