"""Training images a second of several trials as one network, against the same trials one after another.

Both are what a sweep runs: `fit`, and `Pack` with as many runs; AGP on all weights, SGD with momentum, augmentation,
validation and checkpoints are in both. An epoch of each in turn, because other processes disturb; a ratio is the median
over the rounds of the ratio within one. Images are random: speed does not depend on what they show.

    python benchmarks/packing.py [--arch simplenet_cifar resnet20_cifar] [--widths 1 2 4] [--device cpu] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from throughput import agp, random_dataset

from raydistill import models
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit
from raydistill.training.packing import Pack

IMAGES = {"cpu": {"simplenet_cifar": 10 * 256, "resnet20_cifar": 256}, "cuda": {}}
ON_GPU = 100 * 256


def rounds(arch: str, width: int, args: argparse.Namespace) -> Iterator[tuple[float, float]]:
    """(images a second one after another, as one network) of each round."""
    count = IMAGES[args.device].get(arch, ON_GPU)
    task = Classification(random_dataset(count))
    epochs = args.rounds + 1
    model = models.create(arch, 10)
    with tempfile.TemporaryDirectory() as folder:
        base = RunConfig(
            arch=arch, epochs=epochs, batch_size=256, schedule=agp(model, epochs), threads=args.threads,
            device=args.device, precision=args.precision, tensorboard=False,
        )  # fmt: skip
        runs = [replace(base, lr=0.01 * (k + 1) / width, seed=0) for k in range(width)]
        alone = [fit(replace(run, out_dir=f"{folder}/alone{k}"), task=task) for k, run in enumerate(runs)]
        with Pack(task, print) as pack:
            for k, run in enumerate(runs):
                pack.add(k, replace(run, out_dir=f"{folder}/packed{k}"))
            for turn in range(epochs):
                begun = time.perf_counter()
                for generator in alone:
                    next(generator)
                middle = time.perf_counter()
                for _, outcome in pack.epoch():
                    if isinstance(outcome, BaseException):
                        raise outcome
                ended = time.perf_counter()
                if turn:  # the first one warms up, and finds out whether and how trials fit together
                    yield width * count / (middle - begun), width * count / (ended - middle)
        for generator in alone:
            generator.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=["simplenet_cifar", "resnet20_cifar"])
    parser.add_argument("--widths", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{'network':<18} {'trials':>6} {'one by one':>12} {'as one':>12} {'ratio':>6}")
    for arch in args.arch:
        for width in args.widths:
            found = list(rounds(arch, width, args))
            one, packed = (statistics.median(side) for side in zip(*found, strict=True))
            ratio = statistics.median(b / a for a, b in found)
            print(f"{arch:<18} {width:>6} {one:>10,.0f}/s {packed:>10,.0f}/s {ratio:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
