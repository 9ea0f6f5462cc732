"""Semantic segmentation as a user would bring it: a task with mean intersection over union, and a small network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.metrics import Metric
from raydistill.tasks import Batch, Feed, Loading, Network, Task
from raydistill.tasks.feeds import TensorFeed

CLASSES, SIDE = 3, 20


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """float32 (N, 1, H, W) with noise, int64 (N, H, W): a bright square (1) and a dark bar (2) on grey (0)."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.full((count, 1, SIDE, SIDE), 0.4) + 0.1 * torch.randn(count, 1, SIDE, SIDE, generator=draw)
    labels = torch.zeros(count, SIDE, SIDE, dtype=torch.int64)
    for image, label in zip(images, labels, strict=True):
        x, y = torch.randint(0, SIDE - 8, (2,), generator=draw).tolist()
        row = int(torch.randint(0, SIDE - 3, (1,), generator=draw))
        label[row : row + 3, 2:-2] = 2
        label[y : y + 8, x : x + 8] = 1
        image[0] += 0.5 * (label == 1) - 0.3 * (label == 2)
    return images, labels


class Segmentation(Task):
    metrics: ClassVar = {
        "miou": Metric("max", label="mean intersection over union"),
        "accuracy": Metric("max", label="pixel accuracy"),
        "loss": Metric("min"),
    }
    name = "squares and bars"

    def __init__(self, pictures_of_train: int = 64) -> None:
        counts = {"train": pictures_of_train, "validation": 24, "test": 24}
        self.splits = {split: pictures(count, seed) for seed, (split, count) in enumerate(counts.items())}

    def feed(self, split: str, loading: Loading) -> Feed:
        return TensorFeed(self.splits[split], split, loading)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        return functional.cross_entropy(network(batch[0]).float(), batch[1])

    @torch.no_grad()
    def evaluate(self, network: nn.Module, feed: Feed, loading: Loading) -> Mapping[str, float]:
        training = network.training
        network.eval()
        seen = torch.zeros(CLASSES, CLASSES, dtype=torch.int64)  # rows: what is there, columns: what was said
        loss, rows = 0.0, 0
        for images, labels in feed.epoch(0):
            with loading.autocast():
                logits = network(images).float()
            loss, rows = loss + float(functional.cross_entropy(logits, labels)) * len(labels), rows + len(labels)
            pairs = labels.flatten() * CLASSES + logits.argmax(1).flatten()
            seen += torch.bincount(pairs.cpu(), minlength=CLASSES**2).reshape(CLASSES, CLASSES)
        network.train(training)
        inside = seen.diagonal()
        union = seen.sum(0) + seen.sum(1) - inside
        return {
            "miou": float((inside / union.clamp(min=1)).mean()),
            "accuracy": float(inside.sum() / seen.sum()),
            "loss": loss / rows,
        }

    def example_input(self, rows: int = 1) -> tuple[Tensor, ...]:
        return (torch.zeros(rows, 1, SIDE, SIDE),)


class UNet(nn.Module):
    """Down once and up again, with what was seen before beside it."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.down = nn.Sequential(
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()
        )
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.last = nn.Sequential(nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, CLASSES, 1))

    def forward(self, images: Tensor) -> Tensor:
        seen = self.first(images)
        return self.last(torch.cat([seen, self.up(self.down(seen))], 1))


def unet(width: int = 8) -> nn.Module:
    return UNet(width)
