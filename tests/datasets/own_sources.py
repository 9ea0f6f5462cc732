"""Datasets as people have them: red squares are class 1, green ones class 0, and the brightness tells the number."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from raydistill.datasets import DatasetConfig


def pixels_of(number: int, side: int = 8) -> np.ndarray:
    """uint8 (side, side, 3): 100 + number in the channel of its class, number % 2."""
    image = np.zeros((side, side, 3), dtype=np.uint8)
    image[..., 1 - number % 2] = 100 + number
    return image


class Pictures(Dataset[tuple[Image.Image, int]]):
    classes = ("green", "red")

    def __init__(self, first: int, count: int, flips: bool = False) -> None:
        self.first, self.count, self.flips = first, count, flips
        self.read = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> tuple[Image.Image, int]:
        self.read += 1
        number = self.first + position
        image = pixels_of(number)
        if self.flips and random.random() < 0.5:
            image = 255 - image
        return Image.fromarray(image), number % 2


class Floats(Dataset[Mapping[str, object]]):
    """As mappings of tensors, normalised by who made it."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, position: int) -> Mapping[str, object]:
        image = torch.from_numpy(pixels_of(position)).permute(2, 0, 1).float()
        return {"pixel_values": image / 64 - 1.5, "labels": torch.tensor(position % 2)}


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __init__(self, first: int, count: int, length: int | None = None) -> None:
        self.first, self.count, self.length = first, count, length

    def __len__(self) -> int:
        if self.length == -1:
            raise TypeError("nobody knows")
        return self.count if self.length is None else self.length

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        for number in range(self.first, self.first + self.count):
            yield torch.from_numpy(pixels_of(number)).permute(2, 0, 1), number % 2


def nested(items: list[tuple[Image.Image, int]]) -> dict[str, object]:
    images = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in items])
    return {"views": [(images, ["a name"])], "more": {"label": torch.tensor([label for _, label in items])}}


def alone(config: DatasetConfig) -> Pictures:
    return Pictures(0, 60)


def subset(config: DatasetConfig) -> Subset[tuple[Image.Image, int]]:
    return Subset(Pictures(0, 90), list(range(20, 80)))


def flipped(config: DatasetConfig) -> dict[str, Pictures]:
    return {"train": Pictures(0, 60, flips=True), "validation": Pictures(60, 10), "test": Pictures(70, 12)}


def floats(config: DatasetConfig) -> Floats:
    return Floats()


def parts(config: DatasetConfig) -> dict[str, object]:
    return {"train": Pictures(0, 30), "validation": Pictures(30, 9)}


def stream(config: DatasetConfig) -> dict[str, object]:
    return {"train": Stream(0, 33), "validation": Stream(33, 10), "test": Pictures(43, 12)}


def loaders(config: DatasetConfig) -> dict[str, object]:
    train = DataLoader(Pictures(0, 33), batch_size=5, shuffle=True, collate_fn=nested, drop_last=True)
    return {"train": train, "validation": DataLoader(Pictures(33, 10), 4, collate_fn=nested)}


class Spots(Dataset[tuple[np.ndarray, list[int]]]):
    """A spot in red, green and blue is the label of that number; any of them may be there. Another one is never."""

    def __len__(self) -> int:
        return 80

    def __getitem__(self, position: int) -> tuple[np.ndarray, list[int]]:
        image = np.full((8, 8, 3), 20, dtype=np.uint8)
        labels = [position >> bit & 1 for bit in range(3)]
        for channel in np.flatnonzero(labels):
            top = position % 5
            image[top : top + 4, :4, channel] = 220
        return image, [*labels, 0]


def spots(config: DatasetConfig) -> dict[str, object]:
    return {"train": Spots(), "classes": ["red", "green", "blue", "infrared"]}


def spot_batches(config: DatasetConfig) -> dict[str, object]:
    def collate(items: list[tuple[np.ndarray, list[int]]]) -> tuple[Tensor, Tensor]:
        images = np.stack([image for image, _ in items])
        return torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor([labels for _, labels in items])

    return {"train": DataLoader(Spots(), 16, shuffle=True, collate_fn=collate), "validation": Spots()}
