"""Two concurrent one-thread trials against one two-thread trial: images a second of the machine in all.

This is why a sweep gives each trial one core. Each trial is a process of its own running `fit`; the images are random.

    python benchmarks/concurrency.py [--arch simplenet_cifar] [--epochs 4] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from raydistill.tasks.classification import Classification

sys.path.insert(0, str(Path(__file__).parent))


def trial(arch: str, threads: int, epochs: int) -> None:
    """In a process of its own: print images a second of each epoch after the first."""
    from throughput import IMAGES, agp, random_dataset

    from raydistill import models
    from raydistill.datasets import DatasetConfig
    from raydistill.training import RunConfig, fit

    schedule = agp(models.create(arch, 10), epochs)
    config = RunConfig(
        arch, DatasetConfig("digits"), epochs=epochs, lr=0.01, threads=threads, schedule=schedule, device="cpu"
    )
    rates = [metrics.samples_per_second for metrics in fit(config, task=Classification(random_dataset(IMAGES[arch])))]
    print(json.dumps(rates[1:]))


def run(arch: str, threads: int, processes: int, epochs: int) -> float:
    """Images a second of all processes together."""
    command = [sys.executable, __file__, "--arch", arch, "--epochs", str(epochs), "--trial", str(threads)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return sum(statistics.median(json.loads(process.communicate()[0])) for process in started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="simplenet_cifar")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trial", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trial is not None:
        trial(options.arch, options.trial, options.epochs)
        return
    rounds = [
        (run(options.arch, 1, 2, options.epochs), run(options.arch, 2, 1, options.epochs))
        for _ in range(options.rounds)
    ]
    ratios = sorted(two / one for two, one in rounds)
    print(f"{options.arch}, {options.rounds} rounds; images a second of the machine (median)")
    print(f"two trials of one thread   {statistics.median(r[0] for r in rounds):8.0f}")
    print(f"one trial of two threads   {statistics.median(r[1] for r in rounds):8.0f}")
    print(f"ratio                      {statistics.median(ratios):8.2f}   ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
