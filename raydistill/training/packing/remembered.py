"""Several networks judged with one pass over a split: outputs are computed for all at once, and the task's own
`evaluate` then finds them in the place of each network's forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from raydistill.tasks import Batch, Feed, Loading, Task
from raydistill.training.packing.ways import Way

MOST_BYTES = 1 << 28
"""Of outputs that are kept for one batch after another, about; with more each network is judged by itself."""

MOST_KEPT = 1 << 30
"""Of a split that is kept on the device, about."""

Known = Mapping[tuple[int, ...], Any]


def can_be_kept(feed: Feed) -> bool:
    """Whether all batches of a split may stay on the device."""
    return feed.batches * _bytes(next(iter(feed.epoch(0)), None)) <= MOST_KEPT


class Remembered(nn.Module):
    """In the place of a network in eval mode: gives what was computed for these very inputs, else calls the network."""

    def __init__(self, network: nn.Module, known: Known, place: int) -> None:
        super().__init__()
        self._network, self._known, self._place = network, known, place
        self.train(network.training)

    def forward(self, *inputs: object, **named: object) -> object:
        found = None if named or self.training else self._known.get(_key(inputs))
        if found is None:
            return self._network(*inputs, **named)
        return pytree.tree_map_only(Tensor, lambda tensor: tensor[self._place], found)


@torch.no_grad()
def outputs_of(
    way: Way,
    task: Task,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    batches: list[Batch],
    loading: Loading,
) -> Known | None:
    """By the inputs of each batch, the outputs of all places; None where they are too large to be kept."""
    known: dict[tuple[int, ...], Any] = {}
    for batch in batches:
        inputs = task.inputs(batch)
        with loading.autocast():
            output = way(parameters, buffers, inputs, True, False)
        if not known and len(batches) * _bytes(output) > MOST_BYTES:
            return None
        known[_key(inputs)] = output
    return known


def _key(inputs: tuple[object, ...]) -> tuple[int, ...]:
    """Inputs are known by what they are, not by their values: a task that makes others of them is given the network."""
    return tuple(id(tensor) for tensor in inputs)


def _bytes(output: object) -> int:
    return sum(part.numel() * part.element_size() for part in pytree.tree_leaves(output) if isinstance(part, Tensor))
