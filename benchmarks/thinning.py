"""What thinning gives: parameters, MACs and CPU latency of a network before and after half of its filters are removed.

In each group of coupled layers the half of least L1 norm is zeroed, in all of them (what reaches attention or a
normalization over channels cannot be thinned and is left dense). Weights are random, and so are the batch norms'
statistics, scales and shifts: zeroed filters still give constants to the layers behind them. The claim: the outputs of
the thinned network are those of the masked one to 1e-5 of the largest; the last column is the difference.

    python benchmarks/thinning.py [--models NAME ...] [--sparsity 0.5] [--batch 1] [--threads 1] [--runs 9]

Latencies are medians of one forward pass, taken in turn from both networks in one process. MACs count as torch's
flop_counter does, for one image.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from raydistill import models
from raydistill.compression.thinning import thin
from raydistill.compression.thinning.graph import trace
from raydistill.training.allocator import keep_freed_memory

NETWORKS = (
    "resnet20_cifar",
    "resnet56_cifar",
    "vgg16_cifar",
    "vgg19",
    "resnet50",
    "densenet121",
    "mobilenet_v2",
    "inception_v3",
    "squeezenet1_1",
    "vit_b_16",
)
SIZES = {"inception_v3": 299}


@torch.no_grad()
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = models.create(name, 10 if name.endswith("_cifar") else 1000).eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.3)
        elif isinstance(module, nn.Linear) and not module.weight.any():
            module.weight.normal_(0, 0.02)  # a head of zeros would hide every difference
    return model


@torch.no_grad()
def prune(model: nn.Module, images: Tensor, sparsity: float) -> dict[str, Tensor]:
    """Zero the filters of least L1 norm of each group of coupled layers; returns the masks."""
    masks: dict[str, Tensor] = {}
    for group in trace(copy.deepcopy(model), images).groups:
        writers = [member for member in group.members if member.side != "in"]
        weights = {m.layer: model.get_submodule(m.layer).weight for m in writers}
        writers = [member for member in writers if weights[member.layer].dim() > 1]
        norms = torch.zeros(group.width)
        for member in writers:
            norms[member.channels] += weights[member.layer].abs().flatten(1).sum(1)[member.where]
        going = torch.zeros(group.width, dtype=torch.bool)
        going[norms.argsort()[: int(sparsity * group.width)]] = group.blocked is None
        for member in writers:
            mask = masks.setdefault(f"{member.layer}.weight", torch.ones_like(weights[member.layer]))
            mask[member.where[going[member.channels]]] = 0
            weights[member.layer].mul_(mask)
    return masks


def macs(model: nn.Module, image: Tensor) -> int:
    torch.backends.mha.set_fastpath_enabled(False)  # attention's one fused operation is not counted
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return counter.get_total_flops() // 2


def latencies(first: nn.Module, second: nn.Module, images: Tensor, runs: int) -> tuple[float, float]:
    """Median milliseconds of a forward pass of each, in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for turn in range(runs + 2):
            for model, found in zip((first, second), times, strict=True):
                start = time.perf_counter()
                model(images)
                if turn > 1:  # the first passes choose kernels and get their memory
                    found.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


@torch.no_grad()
def measure(name: str, options: argparse.Namespace) -> None:
    size = 32 if name.endswith("_cifar") else SIZES.get(name, 224)
    images = torch.randn(options.batch, 3, size, size, generator=torch.Generator().manual_seed(1))
    model = network(name)
    masks = prune(model, images[:1], options.sparsity)
    before = copy.deepcopy(model)
    report = thin(model, masks, images[:1])
    expected = before(images)
    difference = float((expected - model(images)).abs().max() / expected.abs().max())
    slow, fast = latencies(before, model, images, options.runs)
    print(
        f"{name:14}{report.parameters_before / 1e6:8.2f}{report.parameters_after / 1e6:7.2f}"
        f"{macs(before, images[:1]) / 1e9:9.3f}{macs(model, images[:1]) / 1e9:7.3f}"
        f"{slow:9.1f}{fast:8.1f}{slow / fast:7.2f}{difference:10.1e}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=NETWORKS)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    print(f"CPU, {options.threads} threads, batch {options.batch}, {options.sparsity:.0%} of the filters of each group")
    print(f"{'':14}{'parameters, M':>15}{'MACs, G':>16}{'latency, ms':>17}{'faster':>7}{'outputs':>10}")
    print(
        f"{'network':14}{'before':>8}{'after':>7}{'before':>9}{'after':>7}{'before':>9}{'after':>8}{'x':>7}{'differ':>10}"
    )
    for name in options.models:
        measure(name, options)


if __name__ == "__main__":
    main()
