"""Images a second of the training feed alone: decode, crop, flip and normalise, without a model.

Compares, in one run on the same images and the same number of threads:
- worker processes: torchvision's RandomCrop(32, padding=4), RandomHorizontalFlip, ToTensor and Normalize, image by
  image, in 2 DataLoader workers, as training scripts usually have it;
- feed: `TrainFeed`, whole batches, crops gathered as rows of bytes;
- pixel gather: the same crops by one index a pixel (what `TrainFeed` does on a GPU), here on the CPU;
- plain: `EvalFeed`, no augmentation: what the crop and flip cost.

    python benchmarks/feed.py [--data-dir DIR] [--threads 1 2] [--batch-size 256] [--repeats 5]

Without --data-dir it uses scikit-learn's digits, 1,797 images. Each figure is the best of the repeats: on a machine
that others share, the best is what the code can do and the rest is what they took.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from raydistill.datasets import ArrayDataset, DatasetConfig, load
from raydistill.tasks.classification.augment import Normalise, gather_pixels
from raydistill.tasks.classification.feed import EvalFeed, TrainFeed


class OneByOne(Dataset[Any]):
    """The train split as PIL images through torchvision's transforms."""

    def __init__(self, dataset: ArrayDataset) -> None:
        self._dataset = dataset
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(dataset.image_shape[1:], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(dataset.mean, dataset.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._dataset.train_index)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        row = self._dataset.train_index[place]
        image = Image.fromarray(self._dataset.train_images[row])
        return self._transform(image), int(self._dataset.train_labels[row])


def by_pixel(dataset: ArrayDataset, batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch with `gather_pixels` on the CPU."""
    normalise = Normalise(dataset.mean, dataset.std, dataset.image_shape[1:], torch.device("cpu"), True)
    order = np.random.default_rng(0).permutation(dataset.train_index)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        dy, dx = torch.randint(0, 9, (2, len(rows)))
        crops = gather_pixels(torch.from_numpy(dataset.train_images[rows]), dy, dx, torch.rand(len(rows)) < 0.5)
        yield normalise(crops), torch.from_numpy(dataset.train_labels[rows])


def best_rate(epoch: Callable[[], Any], repeats: int, at_least_s: float = 0.3) -> float:
    """Images a second, best of `repeats`; an epoch that is too short to time is run several times over."""
    best = 0.0
    for _ in range(repeats + 1):  # the first one warms up
        images, started = 0, time.perf_counter()
        while time.perf_counter() - started < at_least_s:
            images += sum(len(labels) for _, labels in epoch())
        best = max(best, images / (time.perf_counter() - started))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    started = time.perf_counter()
    config = DatasetConfig("imagefolder" if options.data_dir else "digits", data_dir=options.data_dir, in_memory=True)
    dataset = load(config)
    assert isinstance(dataset, ArrayDataset)  # in_memory insists
    dataset = replace(dataset, augment="crop_flip")
    print(f"{dataset.name}: loaded in {time.perf_counter() - started:.1f} s, {dataset.nbytes / 1e6:.0f} MB,")
    print(f"{len(dataset.train_index)} train images of {dataset.image_shape}, batches of {options.batch_size}\n")

    loader = DataLoader(OneByOne(dataset), options.batch_size, shuffle=True, num_workers=2)
    torch.set_num_threads(1)
    workers = best_rate(lambda: loader, 1)
    print(f"{'threads':>7}  {'':<18}{'images/s':>10}  {'to workers':>10}")
    print(f"{'2 proc.':>7}  {'worker processes':<18}{workers:>10,.0f}  {'1.0x':>10}")
    for threads in options.threads:
        torch.set_num_threads(threads)
        feed = TrainFeed(dataset, options.batch_size, "cpu", seed=0)
        epochs = iter(range(1_000_000))
        rates = {
            "feed": best_rate(lambda feed=feed, epochs=epochs: feed.epoch(next(epochs)), options.repeats),
            "pixel gather": best_rate(lambda: by_pixel(dataset, options.batch_size), options.repeats),
            "plain": best_rate(lambda: EvalFeed(dataset, "train", options.batch_size, "cpu").epoch(0), options.repeats),
        }
        for name, rate in rates.items():
            print(f"{threads:>7}  {name:<18}{rate:>10,.0f}  {f'{rate / workers:.1f}x':>10}")


if __name__ == "__main__":
    main()
