"""What a sensitivity analysis costs beside its evaluations, and what reusing the batches saves.

The claim: an analysis takes little more time than its evaluations by themselves. Both are timed in one run: the whole
analysis, and within it the time spent in `evaluate`. For comparison, one evaluation with the batches kept on the
device is timed in turn with one as it was usually written: the model copied for the weight, every batch gathered and
normalised anew.

    python benchmarks/sensitivity.py [--threads 2] [--images 500] [--arch resnet20_cifar]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from raydistill import models
from raydistill.compression.sensitivity import analyse, levels, prunable
from raydistill.datasets import ArrayDataset
from raydistill.tasks.classification.evaluate import evaluate
from raydistill.tasks.classification.feed import EvalFeed
from raydistill.training import device_of
from raydistill.training.allocator import keep_freed_memory


def noise(images: int) -> ArrayDataset:
    """Random 32x32 images of ten classes: the time does not depend on what is in them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images + 10, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(images + 10) % 10
    index = np.arange(images + 10)
    means, stds = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    classes = tuple(map(str, range(10)))
    return ArrayDataset(
        "noise", classes, means, stds, "none", pixels, labels, pixels, labels, index[images:], index[:images]
    )


def timed(function: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--arch", default="resnet20_cifar")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    device = device_of("auto")
    torch.manual_seed(0)
    model = models.create(options.arch, 10).to(device).to(memory_format=torch.channels_last)
    feed = EvalFeed(noise(options.images), "validation", 256, device)
    batches = list(feed)
    inside: list[float] = []

    def kept(network: nn.Module) -> Mapping[str, float]:
        start = time.perf_counter()
        top1 = evaluate(network, batches, "validation", device).metrics["top1"]  # waits for the device
        inside.append(time.perf_counter() - start)
        return {"top1": top1}

    def anew(network: nn.Module) -> Mapping[str, float]:
        return {"top1": evaluate(copy.deepcopy(network), feed, "validation", device).metrics["top1"]}

    kept(model)
    steps = levels(0.0, 0.95, 0.1)
    print(f"{options.arch}, {len(prunable(model, 'element'))} weights x {len(steps)} levels, {options.images} images")
    print(f"{device}, {options.threads} threads")
    print(f"{'sense':10}{'evaluations':>13}{'they take s':>13}{'analysis s':>12}{'ratio':>8}")
    for sense in ("element", "filter", "channel"):
        inside.clear()
        whole = timed(lambda sense=sense: list(analyse(model, kept, steps, sense)))
        print(f"{sense:10}{len(inside):13}{sum(inside):13.2f}{whole:12.2f}{whole / sum(inside):8.3f}")
    pairs = [(timed(kept, model), timed(anew, model)) for _ in range(9)]
    here, there = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"one evaluation: batches kept {1e3 * here:.1f} ms, gathered anew {1e3 * there:.1f} ms, {there / here:.3f} x")


if __name__ == "__main__":
    main()
