"""What masks cost: the scheduler's callbacks against a whole training step, and fused against tensor by tensor.

The claim: masks and callbacks take under 2 % of a step. A difference of two training runs would drown in the noise of
a shared machine, so the callbacks are timed by themselves, in turn with steps without them, in one process; each
figure is the median.

    python benchmarks/masks.py [--threads 2] [--steps 60]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from raydistill import models
from raydistill.compression import build
from raydistill.schedule import parse_schedule
from raydistill.training.allocator import keep_freed_memory


def timed(function: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def measure(arch: str, steps: int) -> None:
    torch.manual_seed(0)
    model = models.create(arch, 10).to(memory_format=torch.channels_last)
    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    pruner = {
        "class": "AutomatedGradualPruner",
        "initial_sparsity": 0.5,
        "final_sparsity": 0.8,
        "weights": list(weights),
    }
    policy = {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 9, "frequency": 1}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    scheduler = build(parse_schedule({"pruners": {"agp": pruner}, "policies": [policy]}, "agp"), model, optimizer)
    begin = timed(scheduler.on_epoch_begin, 0)
    images = torch.randn(256, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (256,))

    def step() -> None:
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    zero = torch.zeros(())

    def callbacks() -> None:
        scheduler.on_minibatch_begin(0, 0, steps)
        scheduler.before_backward(0, 0, steps, zero)
        scheduler.before_parameter_optimization(0, 0, steps)
        scheduler.on_minibatch_end(0, 0, steps)

    def tensor_by_tensor(target: nn.Module) -> None:
        for name, parameter in target.named_parameters():
            if name in weights:
                parameter.data.mul_(scheduler.masks[name])

    times: dict[str, list[float]] = {"step": [], "callbacks": [], "loop": []}
    for _ in range(steps):
        times["step"].append(timed(step))
        times["callbacks"].append(timed(callbacks))
        times["loop"].append(timed(tensor_by_tensor, model))
    middle = {name: statistics.median(values) for name, values in times.items()}
    share = 100 * middle["callbacks"] / middle["step"]
    print(
        f"{arch:17}{1e3 * middle['step']:10.1f}{1e6 * middle['callbacks']:14.0f}{share:9.2f} %"
        f"{middle['loop'] / middle['callbacks']:14.1f}{1e3 * begin:15.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    print(f"CPU, {options.threads} threads, batch 256")
    print(f"{'network':17}{'step ms':>10}{'callbacks us':>14}{'share':>11}{'loop/fused':>14}{'set masks ms':>15}")
    for arch, steps in (("simplenet_cifar", options.steps), ("resnet20_cifar", max(5, options.steps // 6))):
        measure(arch, steps)


if __name__ == "__main__":
    main()
