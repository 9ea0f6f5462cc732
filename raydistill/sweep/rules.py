"""Allocations by rule, worked out on the dense baseline: see `raydistill.compression.allocation`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from raydistill.compression.allocation import Levels, by_rules, uniform
from raydistill.compression.copying import copy_of
from raydistill.sweep.file.goal import BY_STRUCTURES
from raydistill.tasks import TRAIN, Loading, Task

_FISHER_BATCHES, _FISHER_ROWS = 16, 64


def allocations_of(model: nn.Module, task: Task, names: Sequence[str], figure: str) -> dict[str, list[Levels]]:
    """The weights' levels by rule, at rising totals. Where a figure comes down with whole structures only, a rule that
    compares single weights says nothing."""
    weights = {name: model.get_parameter(name) for name in names}
    if figure in BY_STRUCTURES:
        return {"uniform": uniform({name: weight.shape for name, weight in weights.items()})}
    return by_rules(weights, fisher_of(model, task, names))


def fisher_of(model: nn.Module, task: Task, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The mean over a few minibatches of training data of the squared gradient, of each weight's shape."""
    copied = copy_of(model).train()  # in eval mode some recurrent kernels have no gradient
    device = next(copied.parameters()).device
    sums = {name: torch.zeros_like(copied.get_parameter(name)) for name in names}
    feed, count = task.feed(TRAIN, Loading(device, _FISHER_ROWS)), 0
    for batch in itertools.islice(feed.epoch(0), _FISHER_BATCHES):
        copied.zero_grad(set_to_none=True)
        task.loss(copied, batch).backward()
        count += 1
        for name in names:
            gradient = copied.get_parameter(name).grad
            if gradient is not None:
                sums[name] += gradient.square()
    return {name: total / max(1, count) for name, total in sums.items()}
