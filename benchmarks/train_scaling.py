"""Training images a second of one run on several Ray Train workers, and what their communication costs.

In one run, with the same global batches of 256: `fit` in one process, on 1 and on 2 Train workers, and in 2 processes
that each train half of every batch by themselves and exchange nothing: what 2 workers could reach if exchanging
gradients were free. The share of a step that the exchange takes is 1 - (2 workers) / (2 processes by themselves).
Every worker has one CPU thread, or one GPU; on a machine with a GPU a plain PyTorch loop over the same images, without
augmentation, masks or checkpoints, is in the table too.

Each of them trains one epoch in turn, because other processes disturb; a ratio is the median over the rounds of the
ratio within one. Images are random unless --data-dir names a CIFAR-10: speed does not depend on what they show.

    python benchmarks/train_scaling.py [--arch simplenet_cifar] [--rounds 5] [--data-dir DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from throughput import BATCH, IMAGES, agp, plain_loop, random_dataset

from raydistill import datasets, models
from raydistill.cluster.quiet import quieten
from raydistill.datasets import Dataset, DatasetConfig
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit

ONE, ONE_WORKER, TWO_WORKERS, APART, PLAIN = (
    "one process",
    "1 Train worker",
    "2 Train workers",
    "2 processes, no exchange",
    "plain PyTorch loop",
)


def images_of(arch: str, data_dir: str | None) -> Dataset:
    if data_dir is None:
        return random_dataset(IMAGES[arch])
    return datasets.load(DatasetConfig("cifar10", data_dir=data_dir))


def config(arch: str, dataset: Dataset, rounds: int, device: str, out: str, of: int = 1) -> RunConfig:
    """of: in so many processes that share each batch by themselves."""
    epochs = rounds + 1
    return RunConfig(
        arch=arch,
        epochs=epochs,
        batch_size=BATCH // of,
        lr=0.01,
        device=device,
        threads=1,
        precision="fp32",
        schedule=agp(models.create(arch, dataset.num_classes), epochs),
        effective_train_size=IMAGES[arch] / of / len(dataset.train_index),
        out_dir=out,
    )


def alone(options: argparse.Namespace) -> None:
    """In a process of its own: one epoch for each line read, its images a second printed."""
    torch.set_num_threads(1)
    dataset = images_of(options.arch, options.data_dir)
    with tempfile.TemporaryDirectory() as out:
        if options.alone == "plain":
            loop = plain_loop(options.arch, dataset, torch.device(options.device))
        else:
            run = fit(
                config(options.arch, dataset, options.rounds, options.device, out, int(options.alone)),
                task=Classification(dataset),
            )

            def loop() -> float:
                return next(run).samples_per_second

        for _ in sys.stdin:
            print(loop(), flush=True)


@contextlib.contextmanager
def processes(which: str, count: int, options: argparse.Namespace) -> Iterator[Callable[[], float]]:
    """Images a second of so many processes that train at the same time."""
    data = [] if options.data_dir is None else ["--data-dir", options.data_dir]
    command = [sys.executable, __file__, "--arch", options.arch, "--rounds", str(options.rounds), *data]
    command += ["--device", options.device, "--alone", which]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]

    def epoch() -> float:
        for process in started:
            assert process.stdin is not None
            process.stdin.write("epoch\n")
            process.stdin.flush()
        return sum(float(process.stdout.readline()) for process in started if process.stdout is not None)

    try:
        yield epoch
    finally:
        for process in started:
            process.communicate()


@contextlib.contextmanager
def workers(count: int, options: argparse.Namespace, dataset: Dataset, shared: Any) -> Iterator[Callable[[], float]]:
    """Images a second of so many Train workers. shared: the dataset's object reference."""
    from raydistill.cluster.team import Team
    from raydistill.cluster.trainer import fit_on_workers

    team = Team(count, cpu=0.5, gpu=int(options.device == "cuda"))  # with one thread each: both teams are there at once
    with tempfile.TemporaryDirectory() as out:
        run = fit_on_workers(config(options.arch, dataset, options.rounds, options.device, out), shared, team)
        with contextlib.closing(run):
            yield lambda: next(run).samples_per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="simplenet_cifar", choices=sorted(IMAGES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--data-dir")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        alone(options)
        return
    quieten()  # before Ray is imported
    import ray

    from raydistill.cluster.connect import connected

    dataset = images_of(options.arch, options.data_dir)
    gpus = torch.cuda.device_count() if options.device == "cuda" else 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(connected(None, dataset.nbytes))
        shared = ray.put(Classification(dataset))
        epochs = {ONE: stack.enter_context(processes("1", 1, options))}
        if gpus == 0:
            epochs[ONE_WORKER] = stack.enter_context(workers(1, options, dataset, shared))
            epochs[TWO_WORKERS] = stack.enter_context(workers(2, options, dataset, shared))
            epochs[APART] = stack.enter_context(processes("2", 2, options))
        else:  # a team keeps its GPUs, so there is one team
            count = 2 if gpus > 1 else 1
            epochs[TWO_WORKERS if gpus > 1 else ONE_WORKER] = stack.enter_context(
                workers(count, options, dataset, shared)
            )
            epochs[PLAIN] = stack.enter_context(processes("plain", 1, options))
        rounds = [{name: epoch() for name, epoch in epochs.items()} for _ in range(options.rounds + 1)][1:]
    report(options, rounds)


def report(options: argparse.Namespace, rounds: Sequence[dict[str, float]]) -> None:
    each = "GPU" if options.device == "cuda" else "CPU thread"
    print(f"{options.arch}, batch {BATCH}, one {each} a worker, {len(rounds)} rounds; images a second (median)")
    for name in rounds[0]:
        ratios = sorted(figures[name] / figures[ONE] for figures in rounds)
        rate, ratio = statistics.median(figures[name] for figures in rounds), statistics.median(ratios)
        print(f"  {name:26}{rate:9,.0f}{ratio:8.2f} of one process  ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    if APART in rounds[0]:
        shares = sorted(1 - figures[TWO_WORKERS] / figures[APART] for figures in rounds)
        span = f"({100 * shares[0]:.0f} to {100 * shares[-1]:.0f} %)"
        print(f"communication: {100 * statistics.median(shares):.0f} % of a step of 2 workers  {span}")


if __name__ == "__main__":
    main()
