"""Everything that is claimed of one GPU, in one run of under ten minutes.

Of simplenet and resnet20 at batch 256, in training images a second: (a) plain PyTorch with torchvision's transforms in
a DataLoader of 8 workers, (b) a plain loop over images that lie on the card, (c) one trial of `fit`, (d) 8, 16 and 32
trials as one network, per trial and together; each in fp32 and bf16; and the share of the time in which the card
computes. Images are random: speed does not depend on what they show.

    python benchmarks/gpu.py [--seconds 6]

Without a GPU it says so and exits with 2.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from throughput import BATCH, PilImages, agp, plain_model, random_dataset
from torch.nn import functional
from torch.utils.data import DataLoader

from raydistill import models
from raydistill.tasks.base import autocast
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig
from raydistill.training.packing import Pack

ARCHS = ("simplenet_cifar", "resnet20_cifar")
WIDTHS = (1, 8, 16, 32)
COUNT = 50 * BATCH
DEVICE = torch.device("cuda")
Turn = Callable[[], int]
"""Trains for a while and says how many images."""


def loader_loop(arch: str, precision: str) -> Turn:
    model, optimizer = plain_model(arch, DEVICE)
    dataset = PilImages(random_dataset(COUNT))
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=8, persistent_workers=True, pin_memory=True)
    batches: list[Iterator[tuple[torch.Tensor, torch.Tensor]]] = [iter(loader)]

    def turn() -> int:
        for _ in range(10):
            batch = next(batches[0], None)
            if batch is None:
                batches[0] = iter(loader)
                batch = next(batches[0])
            _step(model, optimizer, batch[0].to(DEVICE), batch[1].to(DEVICE), precision)
        return 10 * BATCH

    return turn


def resident_loop(arch: str, precision: str) -> Turn:
    model, optimizer = plain_model(arch, DEVICE)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(4 * BATCH, 3, 32, 32, device=DEVICE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (4 * BATCH,), device=DEVICE)

    def turn() -> int:
        for index in range(40):
            rows = slice(index % 4 * BATCH, (index % 4 + 1) * BATCH)
            _step(model, optimizer, images[rows], labels[rows], precision)
        return 40 * BATCH

    return turn


def packed(arch: str, width: int, precision: str, folder: str) -> Turn:
    """`width` trials of ours, with augmentation, pruning, validation and checkpoints; one is what `fit` does."""
    task = Classification(random_dataset(COUNT))
    run = RunConfig(
        arch=arch, epochs=1000, batch_size=BATCH, schedule=agp(models.create(arch, 10), 1000), device="cuda",
        precision=precision, tensorboard=False,  # type: ignore[arg-type]
    )  # fmt: skip
    pack = Pack(task, print)
    for k in range(width):
        pack.add(k, replace(run, lr=0.01 * (k + 1) / width, out_dir=f"{folder}/{arch}-{width}-{precision}-{k}"))

    def turn() -> int:
        for _, outcome in pack.epoch():
            if isinstance(outcome, BaseException):
                raise outcome
        return width * COUNT

    return turn


def _step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor, precision: str
) -> None:
    with autocast(precision, DEVICE):
        loss = functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def rate(turn: Turn, seconds: float) -> float:
    turn()
    torch.cuda.synchronize()
    begun, images = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        images += turn()
        torch.cuda.synchronize()
    return images / (time.perf_counter() - begun)


def busy(turn: Turn) -> float:
    """The share of a turn's time in which kernels run."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    begun = time.perf_counter()
    turn()
    torch.cuda.synchronize()
    plain = time.perf_counter() - begun  # the profiler itself slows the host
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        turn()
        torch.cuda.synchronize()
    in_kernels = sum(event.self_device_time_total for event in profiled.key_averages()) / 1e6
    return in_kernels / plain


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("error: there is no GPU here, and everything that this measures needs one", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batch {BATCH}")
    print(f"{'network':<17} {'precision':<9} {'what':<28} {'images/s':>12} {'a trial':>10} {'in kernels':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for arch in ARCHS:
            for precision in ("fp32", "bf16"):
                what: list[tuple[str, int, Callable[[], Turn]]] = [
                    ("DataLoader, 8 workers", 1, lambda a=arch, p=precision: loader_loop(a, p)),  # type: ignore[misc]
                    ("plain loop on the card", 1, lambda a=arch, p=precision: resident_loop(a, p)),  # type: ignore[misc]
                ]
                for width in WIDTHS:
                    name = "one trial" if width == 1 else f"{width} trials as one"
                    what.append(
                        (name, width, lambda a=arch, p=precision, w=width: packed(a, w, p, folder))  # type: ignore[misc]
                    )
                for name, trials, make in what:
                    turn = make()
                    found = rate(turn, args.seconds)
                    share = busy(turn)
                    print(
                        f"{arch:<17} {precision:<9} {name:<28} {found:>12,.0f} {found / trials:>10,.0f} {share:>10.0%}",
                        flush=True,
                    )
                    del turn
                    torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
