"""A multilayer perceptron for the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from raydistill.errors import ConfigError, Fault


class MLP(nn.Module):
    """Features float32 (B, inputs) to (B, outputs): a ReLU behind each of the hidden `layers`, none behind `out`.

    widths: of the hidden layers, in their order. inputs, outputs: by default those of diabetes.

    Raises:
        ConfigError: a width that is none.
    """

    def __init__(
        self, inputs: int = 10, outputs: int = 1, widths: Sequence[int] = (64, 64), dropout: float = 0.0
    ) -> None:
        super().__init__()
        right = isinstance(widths, (list, tuple)) and all(type(width) is int and width > 0 for width in widths)
        if not right or not widths:
            raise ConfigError(
                Fault("widths", "must be whole numbers from 1 up, one a hidden layer", widths, "as [64, 64]")
            )
        before = (inputs, *widths)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(before, widths, strict=False))
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(widths[-1], outputs)

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers:
            features = self.drop(torch.relu(layer(features)))
        return self.out(features)
