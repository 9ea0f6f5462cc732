"""Factories of one's own data: what a user's module would have."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from raydistill.datasets import DatasetConfig


def line(count: int = 100, seed: int = 0) -> tuple[Tensor, Tensor]:
    """y = 10 + 3 x0 - x1."""
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return x, 10 + 3 * x[:, 0] - x[:, 1]


class Pairs(Dataset[Any]):
    def __len__(self) -> int:
        return 50

    def __getitem__(self, place: int) -> tuple[Tensor, float]:
        x, y = line(50)
        return x[place], float(y[place])


def whole(config: DatasetConfig) -> tuple[Tensor, Tensor]:
    return line()


def pairs(config: DatasetConfig) -> Dataset[Any]:
    return Pairs()


def parts(config: DatasetConfig) -> dict[str, Any]:
    return {"train": line(40), "test": line(20, 1)}


def all_parts(config: DatasetConfig) -> dict[str, Any]:
    return {"train": line(40), "validation": line(10, 2), "test": line(20, 1)}


def words(config: DatasetConfig) -> str:
    return "no tensors"


def unequal(config: DatasetConfig) -> tuple[Tensor, Tensor]:
    return torch.zeros(4, 2), torch.zeros(5)


def infinite(config: DatasetConfig) -> tuple[Tensor, Tensor]:
    return torch.zeros(4, 2), torch.tensor([0.0, 1.0, float("nan"), 2.0])


def other_parts(config: DatasetConfig) -> dict[str, Any]:
    return {"train": line(4), "tset": line(4)}


def other_shapes(config: DatasetConfig) -> dict[str, Any]:
    return {"train": line(4), "test": (torch.zeros(4, 3), torch.zeros(4))}


class Net(nn.Module):
    """Of one's own: it asks for the number of inputs, and tells (B,)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc(features)[:, 0]
