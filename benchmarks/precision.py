"""fp32 against bf16 autocast: validation top1 over three seeds, images a second, and what ``precision: auto`` chooses.

The same training (dense, then pruned by AGP) in both precisions, from the same seeds on the same images.

    python benchmarks/precision.py [--data-dir DIR] [--epochs 15] [--arch simplenet_cifar] [--seeds 3] [--first 0]

Without --data-dir it uses scikit-learn's digits. top1 is of the validation split.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from throughput import agp

from raydistill import datasets, models
from raydistill.datasets import DatasetConfig
from raydistill.training import RunConfig, device_of, fit
from raydistill.training.precision import choose, has_bf16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--arch", default="simplenet_cifar")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    config = DatasetConfig("cifar10" if options.data_dir else "digits", data_dir=options.data_dir)
    dataset = datasets.load(config)
    model = models.create(options.arch, dataset.num_classes)
    device = device_of("auto")
    chosen = choose("auto", model.to(device), device, (256, *dataset.image_shape), deterministic=False)
    print(f"{options.arch} on {dataset.name}, {options.epochs} epochs, {options.seeds} seeds, validation top1")
    print(f"bf16 arithmetic on this device: {has_bf16(device)}; precision: auto chooses {chosen}")
    figures: dict[str, list[tuple[float, float]]] = {"fp32": [], "bf16": []}
    for seed in range(options.first, options.first + options.seeds):
        for precision, results in figures.items():
            run = RunConfig(
                options.arch,
                config,
                epochs=options.epochs,
                batch_size=64 if dataset.name == "digits" else 256,
                seed=seed,
                precision=precision,
                threads=options.threads,
                schedule=agp(model, options.epochs),
            )
            torch.manual_seed(seed)
            history = list(fit(run, dataset=dataset))
            results.append((history[-1].top1, statistics.median(m.images_per_second for m in history)))
    for precision, results in figures.items():
        tops = [top1 for top1, _ in results]
        rate = statistics.median(rate for _, rate in results)
        print(
            f"{precision}   top1 {statistics.mean(tops):.4f} +- {statistics.stdev(tops):.4f}"
            f"   {rate:8.0f} images a second   seeds: " + " ".join(f"{top1:.4f}" for top1 in tops)
        )
    gaps = [b - f for (f, _), (b, _) in zip(figures["fp32"], figures["bf16"], strict=True)]
    print(f"bf16 - fp32, seed by seed: mean {statistics.mean(gaps):+.4f}, range {min(gaps):+.4f} to {max(gaps):+.4f}")


if __name__ == "__main__":
    main()
