"""Greedy filter pruning: at each step the layer whose smallest filters are missed least loses them.

Abbasi-Asl and Yu 2017 (arXiv 1705.07356); as NetAdapt (Yang et al. 2018, arXiv 1804.03230) the candidate of each layer
is fine-tuned and evaluated before one is chosen, and the budget is what the network computes (MACs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.compression.granularity import FILTERS
from raydistill.compression.masks import smallest_mask
from raydistill.compression.rankings import l1
from raydistill.compression.structure import Change
from raydistill.errors import ConfigError, Fault, close_match
from raydistill.metrics import LOSS, Metric, selecting


@dataclass(frozen=True)
class GreedyStep:
    """One step. weight: whose filters went, `removed` of them. macs: of the network now. density: macs over the dense
    network's. metrics: what `evaluate` gave for it. model: the thinned network, a copy of its own. structure: the
    changes that all steps so far have made to the first network."""

    index: int
    weight: str
    removed: int
    macs: int
    density: float
    metrics: Mapping[str, float]
    model: nn.Module
    structure: tuple[Change, ...] = ()


def greedy_filter_pruning(
    model: nn.Module,
    evaluate: Callable[[nn.Module], Mapping[str, float]],
    example_input: Sequence[object],
    macs: Callable[[nn.Module], int],
    metric: Metric,
    target_density: float,
    step: float = 0.1,
    weights: Sequence[str] | None = None,
    fine_tune: Callable[[nn.Module], None] | None = None,
) -> Iterator[GreedyStep]:
    """Yield thinner and thinner networks until one computes at most `target_density` of the dense one's MACs.

    evaluate: metrics of a network on the validation split; the candidate that is best by the first of them wins, of
    equals the one with the lowest loss. metric: what the first one means. macs: multiply-accumulates of a network.
    step: the fraction of a layer's present filters (one at least) that a candidate loses, those with the smallest L1
    norm. weights: conv weights to choose from; None: all that thinning can shorten. fine_tune: trains a candidate in
    place before it is evaluated. `model` itself is not changed.

    Raises:
        ConfigError: a number out of range, an unknown weight, or no layer left to prune before the target is reached.
    """
    _check(model, target_density, step, weights)
    current, dense, index = copy_of(model), macs(model), 0
    structure: tuple[Change, ...] = ()
    while macs(current) > target_density * dense:
        index += 1
        best: tuple[tuple[float, float], GreedyStep] | None = None
        for name in _candidates(current, weights):
            candidate = copy_of(current)
            removed, changes = _shorten(candidate, name, step, example_input)
            if removed == 0:
                continue
            if fine_tune is not None:
                fine_tune(candidate)
            metrics = evaluate(candidate)
            count = macs(candidate)
            taken = GreedyStep(index, name, removed, count, count / dense, metrics, candidate, (*structure, *changes))
            first = metrics[selecting(metrics)]
            order = (first if metric.maximise else -first, -metrics[LOSS])
            if best is None or order > best[0]:
                best = (order, taken)
        if best is None:
            rule = f"cannot be reached: no layer can lose filters at a density of {macs(current) / dense:.3f}"
            raise ConfigError(Fault("target_density", rule, target_density, "raise it, or name more weights"))
        current, structure = best[1].model, best[1].structure
        yield best[1]


def _candidates(model: nn.Module, names: Sequence[str] | None) -> list[str]:
    convolutions = [name for name, p in model.named_parameters() if p.dim() == 4 and p.shape[0] > 1]
    return convolutions if names is None else [name for name in names if name in convolutions]


@torch.no_grad()
def _shorten(
    model: nn.Module, name: str, step: float, example_input: Sequence[object]
) -> tuple[int, tuple[Change, ...]]:
    """Remove the smallest filters of one weight from the model; how many went (0: coupling keeps them), and how."""
    from raydistill.compression.thinning import thin

    weight = model.get_parameter(name)
    filters = weight.shape[0]
    count = min(filters - 1, max(1, int(step * filters)))
    keep = smallest_mask(l1(FILTERS.groups(weight)), count / filters)
    masks: dict[str, Tensor] = {name: FILTERS.expand(keep, weight).clone()}
    report = thin(model, masks, example_input, structures=("filters",), exact=False)
    return filters - model.get_parameter(name).shape[0], report.changes


def _check(model: nn.Module, target_density: float, step: float, weights: Sequence[str] | None) -> None:
    faults = []
    for name, value in (("target_density", target_density), ("step", step)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < 1.0:
            faults.append(Fault(name, "must be a fraction above 0 and below 1", value))
    known = {name: p.dim() for name, p in model.named_parameters()}
    for weight in weights or ():
        if known.get(weight) != 4:
            rule = "the model has no such convolution weight"
            faults.append(Fault("weights", rule, weight, close_match(weight, [n for n, d in known.items() if d == 4])))
    if faults:
        raise ConfigError(*faults)
