"""Training images a second: `fit` against two plain PyTorch loops, in one run.

(a) torchvision's CIFAR-10 transforms on PIL images, 2 DataLoader workers, masks multiplied tensor by tensor: how
    Distiller trains. The claim: `fit` is at least 3 times as fast on simplenet and 2 times on resnet20.
(b) a plain loop over the same decoded images, normalised only: no augmentation, no masks, no checkpoints.

All three train with SGD, momentum and weight decay, batch 256. `fit` also augments and prunes (AGP), decides masks anew
in every epoch, and writes its checkpoints. Images are random: speed does not depend on what they show. Each loop lives
in a process of its own (`fit` sets the allocator, which must not help the others); rounds give each of them one epoch
in turn, because other processes disturb; a ratio is the median over the rounds of the ratio within one.

    python benchmarks/throughput.py [--threads 2] [--rounds 5] [--device cpu]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from raydistill import models
from raydistill.datasets import ArrayDataset, DatasetConfig
from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BATCH = 256
IMAGES = {"simplenet_cifar": 20 * BATCH, "resnet20_cifar": 3 * BATCH}


def random_dataset(count: int) -> ArrayDataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count + 512, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, count + 512)
    index = np.arange(count + 512)
    return ArrayDataset(
        name="random",
        classes=tuple("0123456789"),
        mean=MEAN,
        std=STD,
        augment="crop_flip",
        train_images=images,
        train_labels=labels,
        test_images=images[:256],
        test_labels=labels[:256],
        train_index=index[:count],
        validation_index=index[count : count + 256],
    )


def agp(model: nn.Module, epochs: int) -> ScheduleSpec:
    weights = [name for name, p in model.named_parameters() if p.dim() > 1]
    pruner = {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.8, "weights": weights}
    policy = {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": epochs, "frequency": 1}
    return parse_schedule({"pruners": {"agp": pruner}, "policies": [policy]}, "benchmark")


class PilImages(Dataset[tuple[torch.Tensor, int]]):
    """What torchvision's CIFAR10 does for each image: array to PIL, then the transforms."""

    def __init__(self, dataset: ArrayDataset) -> None:
        self.images = dataset.train_images[dataset.train_index]
        self.labels = dataset.train_labels[dataset.train_index]
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def step(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor) -> float:
    loss = functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def plain_model(arch: str, device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = models.create(arch, 10).to(device).train()
    return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)


def distiller_loop(arch: str, dataset: ArrayDataset, device: torch.device) -> Callable[[], float]:
    model, optimizer = plain_model(arch, device)
    masks = {name: (torch.rand_like(p) > 0.5).float() for name, p in model.named_parameters() if p.dim() > 1}
    loader = DataLoader(PilImages(dataset), BATCH, shuffle=True, num_workers=2, persistent_workers=True)

    def epoch() -> float:
        start = time.perf_counter()
        for images, labels in loader:
            step(model, optimizer, images.to(device), labels.to(device))
            for name, parameter in model.named_parameters():
                if name in masks:
                    parameter.data.mul_(masks[name])
        return len(dataset.train_index) / (time.perf_counter() - start)

    return epoch


def plain_loop(arch: str, dataset: ArrayDataset, device: torch.device) -> Callable[[], float]:
    model, optimizer = plain_model(arch, device)
    images = torch.from_numpy(dataset.train_images[dataset.train_index]).permute(0, 3, 1, 2).contiguous().to(device)
    labels = torch.from_numpy(dataset.train_labels[dataset.train_index]).to(device)
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))

    def epoch() -> float:
        start = time.perf_counter()
        order = torch.randperm(len(images), device=device)
        for rows in order.split(BATCH):
            step(model, optimizer, (images[rows].float() / 255 - mean) / std, labels[rows])
        return len(images) / (time.perf_counter() - start)

    return epoch


def fit_loop(arch: str, dataset: ArrayDataset, device: str, threads: int, epochs: int, out: str) -> Callable[[], float]:
    config = RunConfig(
        arch=arch,
        dataset=DatasetConfig("digits"),
        epochs=epochs,
        batch_size=BATCH,
        lr=0.01,
        device=device,
        threads=threads,
        schedule=agp(models.create(arch, 10), epochs),
        out_dir=out,
    )
    run = fit(config, task=Classification(dataset))
    return lambda: next(run).samples_per_second


LOOPS = ("fit", "a", "b")


def worker(which: str, arch: str, device: str, threads: int, epochs: int) -> None:
    """In a process of its own: one epoch for each line read, its images a second printed."""
    torch.set_num_threads(threads)
    dataset = random_dataset(IMAGES[arch])
    with tempfile.TemporaryDirectory() as out:
        if which == "fit":
            loop = fit_loop(arch, dataset, device, threads, epochs, out)
        else:
            loop = (distiller_loop if which == "a" else plain_loop)(arch, dataset, torch.device(device))
        for _ in sys.stdin:
            print(loop(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--arch", action="append", choices=sorted(IMAGES))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker, options.device, options.threads, options.rounds + 1)
        return
    print(
        f"{options.device}, {options.threads} threads, batch {BATCH}, {options.rounds} rounds; images a second (median)"
    )
    print(f"{'network':17}{'fit':>8}{'(a)':>8}{'(b)':>8}{'fit/(a)':>9}{'fit/(b)':>9}   range of fit/(a)")
    common = ["--device", options.device, "--threads", str(options.threads), "--rounds", str(options.rounds)]
    for arch in options.arch or sorted(IMAGES, reverse=True):
        commands = [[sys.executable, __file__, "--worker", which, arch, *common] for which in LOOPS]
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for command in commands
        ]
        rounds = [[one_epoch(process) for process in processes] for _ in range(options.rounds + 1)][
            1:
        ]  # one to warm up
        for process in processes:
            process.communicate()
        fitted, a, b = zip(*rounds, strict=True)
        over_a = sorted(f / x for f, x in zip(fitted, a, strict=True))
        over_b = sorted(f / x for f, x in zip(fitted, b, strict=True))
        print(
            f"{arch:17}{statistics.median(fitted):8.0f}{statistics.median(a):8.0f}{statistics.median(b):8.0f}"
            f"{statistics.median(over_a):9.2f}{statistics.median(over_b):9.2f}   {over_a[0]:.2f} to {over_a[-1]:.2f}"
        )


def one_epoch(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("epoch\n")
    process.stdin.flush()
    return float(process.stdout.readline())


if __name__ == "__main__":
    main()
