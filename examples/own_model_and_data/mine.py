"""A network and data of one's own: what sweep.yaml beside it names as ``mine:net`` and ``mine:shapes``."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset


def net(num_classes, width=16):
    """Called with the dataset's number of classes and with `model.args`; anything that returns a torch module does."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, num_classes),
    )


class Shapes(Dataset):
    """Bright squares and discs on noise: (image, label) pairs, images as uint8 (3, 16, 16)."""

    classes = ("square", "disc")

    def __init__(self, count, seed):
        self.count, self.seed = count, seed

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        draw = np.random.default_rng([self.seed, index])
        label = int(draw.integers(2))
        size, top, left = int(draw.integers(3, 6)), *draw.integers(0, 5, 2)
        y, x = np.mgrid[:16, :16] - np.array([top + 5, left + 5])[:, None, None]
        inside = (np.abs(x) <= size) & (np.abs(y) <= size) if label == 0 else x * x + y * y <= size * size
        image = draw.integers(0, 120, (3, 16, 16)) + 100 * inside
        return torch.from_numpy(image.astype(np.uint8)), label


def shapes(config):
    """config: the `dataset` section; its `args` are one's own. A part that is left out is split off train."""
    count = config.args.get("count", 2000)
    return {"train": Shapes(count, 0), "validation": Shapes(count // 4, 1), "test": Shapes(count // 4, 2)}
