"""Seconds to choose the masks of a resnet50 (25.5 million weights) by magnitude, against torch.nn.utils.prune.

Per layer: each weight to 80 % sparsity (`SparsityLevelParameterPruner`, `prune.l1_unstructured`). Global: all weights
together (`RankedPruner` with scope global, `prune.global_unstructured`). The script also
counts the weights on which the two differ. Rounds alternate; a ratio is the median over rounds.

    python benchmarks/mask_choice.py [--rounds 3] [--threads 2] [--arch resnet50]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from raydistill import models
from raydistill.compression import weights
from raydistill.compression.pruners import Moment, Pruner, RankedPruner, SparsityLevelParameterPruner
from raydistill.compression.rates import PolicyTime

LEVEL = 0.8
NOW = Moment(PolicyTime(0, 0, 1, 1))


def ours(pruner: Pruner, model: nn.Module) -> tuple[float, dict[str, Tensor]]:
    named = {name: weight.detach() for name, weight in weights(model)}
    start = time.perf_counter()
    masks = pruner.masks(named, NOW)
    return time.perf_counter() - start, masks


def torchs(choose: Callable[[list[tuple[nn.Module, str]]], None], model: nn.Module) -> tuple[float, dict[str, Tensor]]:
    layers = {name: model.get_submodule(name.rpartition(".")[0]) for name, _ in weights(model)}
    start = time.perf_counter()
    choose([(layer, "weight") for layer in layers.values()])
    seconds = time.perf_counter() - start
    masks = {name: layer.weight_mask.clone() for name, layer in layers.items()}
    for layer in layers.values():
        prune.remove(layer, "weight")
    return seconds, masks  # prune.remove writes the zeros into the weights: each run gets a model of its own


def per_layer(layers: list[tuple[nn.Module, str]]) -> None:
    for layer, name in layers:
        prune.l1_unstructured(layer, name, amount=LEVEL)


def together(layers: list[tuple[nn.Module, str]]) -> None:
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=LEVEL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--arch", default="resnet50")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = models.create(options.arch, 1000)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    names = [name for name, _ in weights(model)]
    count = sum(weight.numel() for _, weight in weights(model))
    cases = {
        "per layer": (SparsityLevelParameterPruner("level", dict.fromkeys(names, LEVEL)), per_layer),
        "global": (RankedPruner("global", LEVEL, names, rate="one_shot", scope="global"), together),
    }
    print(f"{options.arch}, {count:,} weights in {len(names)}, CPU, {options.threads} threads, {options.rounds} rounds")
    print(f"{'':<12}{'raydistill s':>14}{'torch s':>10}{'torch/ours':>12}{'differ':>10}")
    for case, (pruner, choose) in cases.items():
        times: list[tuple[float, float]] = []
        differ = 0
        for _ in range(options.rounds):
            model.load_state_dict(state)
            mine, masks = ours(pruner, model)
            theirs, other = torchs(choose, model)
            times.append((mine, theirs))
            differ = sum(int((masks[name] != other[name]).sum()) for name in names)
        a, b = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(theirs / mine for mine, theirs in times)
        print(f"{case:<12}{a:>14.2f}{b:>10.2f}{ratio:>12.2f}{differ:>10}")


if __name__ == "__main__":
    main()
