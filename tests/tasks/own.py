"""A task as a user would write it: where does a point lie on a noisy line?"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from raydistill.metrics import Metric
from raydistill.tasks import Batch, Feed, Loading, Network, Task
from raydistill.tasks.feeds import TensorFeed


class Line(Task):
    metrics: ClassVar = {"mae": Metric("min", label="mean absolute error"), "loss": Metric("min")}
    name = "points on a line"

    def __init__(self, points: int = 256, noise: float = 0.05) -> None:
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(points, 6, generator=draw)
        y = x @ torch.arange(6.0)[:, None] + noise * torch.randn(points, 1, generator=draw)
        third = points // 3
        self.splits = {"train": (x[:third], y[:third]), "validation": (x[third : 2 * third], y[third : 2 * third])}
        self.splits["test"] = (x[2 * third :], y[2 * third :])

    def feed(self, split: str, loading: Loading) -> Feed:
        return TensorFeed(self.splits[split], split, loading)

    def loss(self, network: Network, batch: Batch) -> torch.Tensor:
        return nn.functional.mse_loss(network(batch[0]), batch[1])

    def evaluate(self, network: nn.Module, feed: Feed, loading: Loading) -> dict[str, float]:
        with torch.no_grad():
            off = torch.cat([network(x) - y for x, y in feed.epoch(0)])
        return {"mae": float(off.abs().mean()), "loss": float(off.square().mean())}

    def example_input(self, rows: int = 1) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(rows, 6),)


class OnlyLoss(Line):
    """Judged by its loss, with the evaluation that every task has."""

    metrics: ClassVar = {"loss": Metric("min")}
    evaluate = Task.evaluate  # type: ignore[assignment]


def net(hidden: int = 8) -> nn.Module:
    """It takes no num_classes: nothing is classified."""
    return nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 1))


class NoMetrics(Line):
    metrics: ClassVar = {"mae": Metric("min")}  # the loss is missing


class Broken(Line):
    def __init__(self) -> None:
        raise OSError("the disk of the points is gone")


def not_a_task() -> None:
    """A function, where a class is wanted."""
