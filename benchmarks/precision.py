"""fp32 against bf16 autocast: validation top1 over three seeds, images a second, and what ``precision: auto`` chooses.

The same training in both precisions, from the same seeds on the same images: AGP to 80 % over the first half of the
epochs, a cosine learning rate down to zero over all of them, as people train.

    python benchmarks/precision.py [--data-dir DIR] [--epochs 15] [--arch simplenet_cifar] [--seeds 3] [--first 0]

Without --data-dir it uses scikit-learn's digits. top1 is of the validation split.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import nn

from raydistill import datasets, models
from raydistill.datasets import DatasetConfig
from raydistill.records import EpochMetrics
from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, device_of, fit
from raydistill.training.precision import choose, has_bf16


def schedule_of(model: nn.Module, epochs: int) -> ScheduleSpec:
    """AGP of every layer's weight to 80 % until half way, and the learning rate's cosine to the end."""
    weights = [name for name, p in model.named_parameters() if p.dim() > 1]
    every = {"starting_epoch": 0, "frequency": 1}
    return parse_schedule(
        {
            "pruners": {
                "agp": {
                    "class": "AutomatedGradualPruner",
                    "initial_sparsity": 0.1,
                    "final_sparsity": 0.8,
                    "weights": weights,
                }
            },
            "lr_schedulers": {"decay": {"class": "CosineAnnealingLR", "T_max": epochs}},
            "policies": [
                {"pruner": {"instance_name": "agp"}, **every, "ending_epoch": max(2, epochs // 2)},
                {"lr_scheduler": {"instance_name": "decay"}, **every, "ending_epoch": epochs},
            ],
        },
        "benchmark",
    )


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
    chosen = choose("auto", model.to(device), device, (torch.zeros(256, *dataset.image_shape),), deterministic=False)
    print(f"{options.arch} on {dataset.name}, {options.epochs} epochs, {options.seeds} seeds, validation top1")
    print(f"bf16 arithmetic on this device: {has_bf16(device)}; precision: auto chooses {chosen}")
    figures: dict[str, list[EpochMetrics]] = {"fp32": [], "bf16": []}
    rates: dict[str, list[float]] = {"fp32": [], "bf16": []}
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
                schedule=schedule_of(model, options.epochs),
            )
            torch.manual_seed(seed)
            history = list(fit(run, task=Classification(dataset)))
            results.append(history[-1])
            rates[precision] += [metrics.samples_per_second for metrics in history]
            last = history[-1]
            print(
                f"  seed {seed} {precision}   top1 {last.metrics['top1']:.4f}   loss {last.metrics['loss']:.4f}",
                flush=True,
            )
    for precision, results in figures.items():
        tops, losses = [m.metrics["top1"] for m in results], [m.metrics["loss"] for m in results]
        print(
            f"{precision}   top1 {statistics.mean(tops):.4f} +- {statistics.stdev(tops):.4f}   loss "
            f"{statistics.mean(losses):.4f} +- {statistics.stdev(losses):.4f}"
            f"   {statistics.median(rates[precision]):8.0f} images a second"
        )
    print(f"bf16 is {statistics.median(rates['bf16']) / statistics.median(rates['fp32']):.2f} times as fast")
    for name in ("top1", "loss"):
        pairs = zip(figures["fp32"], figures["bf16"], strict=True)
        gaps = [getattr(b, name) - getattr(f, name) for f, b in pairs]
        error = statistics.stdev(gaps) / len(gaps) ** 0.5
        print(
            f"bf16 - fp32, seed by seed, {name}: mean {statistics.mean(gaps):+.4f} (standard error {error:.4f}), "
            f"range {min(gaps):+.4f} to {max(gaps):+.4f}"
        )


if __name__ == "__main__":
    main()
