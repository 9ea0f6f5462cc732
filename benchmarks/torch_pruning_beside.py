"""Torch-Pruning and raydistill doing the same structural pruning in one run: what goes, what it takes, how fast it is.

Half of the structures of every group that can lose some go, by the same importance (sums of squares, norms among the
parts, mean over the parts), each by its own means: `tp.pruner.BasePruner` removes them, `CoupledPruner` masks them and
`deploy` takes them out. Weights are random, norms and biases too. Shown are parameters and MACs of the dense network
that are left, CPU latency against the dense network's (medians, all three in turn, in one process), the seconds from
the dense network to the small one (the best of `--repeats`), and how far the small network's outputs are from those of
the masked one, relative to the largest: Torch-Pruning's from its own groups masked, ours from ours.

    python benchmarks/torch_pruning_beside.py [--only NAME ...] [--repeats 2]
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch_pruning as tp
from structures import masked, milliseconds, relative, unsettle
from torch import Tensor, nn

from raydistill import models
from raydistill.compression.deployment import deploy
from raydistill.compression.summaries import total_macs

NETWORKS = {"resnet18": 224, "resnet50": 224, "vgg16_cifar": 32, "mobilenet_v2": 224, "vit_b_16": 224}
EVERYTHING = ("Filters", "Neurons", "Heads", "Units", "Embedding")


def network(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    model = models.create(name, None if name != "vgg16_cifar" else 10, None, "network").eval()
    unsettle(model)
    size = NETWORKS[name]
    return model, (torch.randn(1, 3, size, size),)


def last_layer(model: nn.Module) -> nn.Module:
    return [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]


def theirs(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Prune it, in place; the outputs of the network whose groups are masked."""
    attentions = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    pruner = tp.pruner.BasePruner(
        model,
        inputs[0],
        tp.importance.MagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=[last_layer(model)],
        num_heads=dict(attentions),
    )
    names = {module: name for name, module in model.named_modules()}
    groups = list(pruner.step(interactive=True))
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for group in groups:
            for item in group:
                _zero(twin, names.get(item.dep.target.module), item.dep.handler, item.idxs)
    for group in groups:
        group.prune()
    with torch.no_grad():
        return twin(*inputs)


def _zero(twin: nn.Module, name: str | None, handler: Any, positions: Sequence[int]) -> None:
    """Mask what one member of a group loses: rows and biases, or columns."""
    module = twin.get_submodule(name) if name is not None else None
    weight = getattr(module, "weight", None)
    if module is None or not isinstance(weight, Tensor):
        return
    columns = "in_channels" in handler.__name__ and weight.dim() > 1 and getattr(module, "groups", 1) == 1
    if columns:
        weight[:, list(positions)] = 0
    elif len(weight) > max(positions):
        weight[list(positions)] = 0
        if isinstance(getattr(module, "bias", None), Tensor):
            module.bias[list(positions)] = 0


def ours(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """The same here."""
    structures = list(EVERYTHING)
    masked(model, inputs, final_sparsity=0.5, ranking="l2_squared", norms=True, structures=structures)
    with torch.no_grad():
        expected = model(*inputs)
    deploy(model, inputs)
    return expected


def best_of(
    repeats: int, dense: nn.Module, inputs: tuple[Tensor, ...], prune: Callable[..., Tensor]
) -> tuple[nn.Module, float, float]:
    """The small network, the fewest seconds, and how far it is from the masked one."""
    seconds, found, moved = [], dense, 0.0
    for _ in range(repeats):
        found = copy.deepcopy(dense)
        begin = time.perf_counter()
        expected = prune(found, inputs)
        seconds.append(time.perf_counter() - begin)
        with torch.no_grad():
            moved = relative(expected, found.eval()(*inputs))
    return found, min(seconds), moved


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0, help="of timing, for the three networks together")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print(f"{'':14} {'':14} {'params %':>8} {'MACs %':>7} {'latency %':>9} {'seconds':>8} {'moved':>8}")
    for name in arguments.only:
        dense, inputs = network(name)
        small = {}
        for who, prune in (("Torch-Pruning", theirs), ("raydistill", ours)):
            try:
                small[who] = best_of(arguments.repeats, dense, inputs, prune)
            except Exception as error:  # the other library's own
                print(f"{name:14} {who:14} {type(error).__name__}: {str(error).splitlines()[0][:90]}", flush=True)
        speed = milliseconds([dense, *(model for model, _, _ in small.values())], inputs, arguments.seconds)
        macs, parameters = total_macs(dense, inputs), size(dense)
        for (who, (model, seconds, moved)), own in zip(small.items(), speed[1:], strict=True):
            shares = [100 * size(model) / parameters, 100 * total_macs(model, inputs) / macs, 100 * own / speed[0]]
            figures = f"{shares[0]:8.1f} {shares[1]:7.1f} {shares[2]:9.1f} {seconds:8.2f} {moved:8.0e}"
            print(f"{name:14} {who:14} {figures}", flush=True)


if __name__ == "__main__":
    main()
