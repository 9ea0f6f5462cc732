"""What is coupled with a layer's channels: a walk over the edges of Torch-Pruning's dependency graph.

The library's own walk finds out how channels are renumbered anew for each layer, and looks through all that it has seen
at each step. Nothing is cut while groups are looked for, so the numbers stay as they were when the graph was built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from raydistill.compression.thinning.renumbering import Lost, renumbered, repeats

if TYPE_CHECKING:
    from torch_pruning.dependency import DependencyGraph, Node

Handler = Callable[..., object]
"""The library's function that would cut a node's rows, or its columns."""

_MOST_INDICES, _MOST_STEPS = 300_000, 10_000


@dataclass(frozen=True)
class Reached:
    """A node of the graph, on one side. where, channels: int64 tensors of one length; position on that side, and the
    channel of the first layer that it is of, -1 where that is not known."""

    node: Node
    handler: Handler
    where: Tensor
    channels: Tensor


def coupled_with(graph: DependencyGraph, module: nn.Module) -> list[Reached]:
    """All that goes with the rows of a layer, that one first. Rows that some layer reads as one (a gate that lies in
    the layer of what it gates) are one channel.

    graph: the library's, built.

    Raises:
        Lost: it does not come to an end, or what it meets cannot be followed.
    """
    pruner = graph.get_pruner_of_module(module)
    walk = _Walk()
    every = torch.arange(pruner.get_out_channels(module))
    walk.add(graph.module2node[module], pruner.prune_out_channels, every.expand(2, -1))
    walk.to_the_end()
    ignored = {id(parameter) for parameter in graph.ignored_params}
    seen = {key: torch.cat(parts, 1) for key, parts in walk.seen.items() if id(key[0].module) not in ignored}
    owner = _read_as_one(len(every), seen.values())
    found = []
    for (node, handler), indices in seen.items():
        where, channels = _merged(indices) if len(walk.seen[node, handler]) > 1 else indices
        found.append(Reached(node, handler, where, channels if owner is None else owner[channels]))
    return found


class _Walk:
    """Depth first. seen: by node and side, the indices that it was reached with, each time anew, (2, n)."""

    def __init__(self) -> None:
        self.seen: dict[tuple[Node, Handler], list[Tensor]] = {}
        self._waiting: list[tuple[Node, Handler, Tensor]] = []
        self._mapped = self._steps = 0

    def add(self, node: Node, handler: Handler, indices: Tensor) -> None:
        self.seen.setdefault((node, handler), []).append(indices)
        self._waiting.append((node, handler, indices))

    def to_the_end(self) -> None:
        left: set[Node] = set()
        while self._waiting:
            node, handler, indices = self._waiting.pop()
            left.add(node)
            for edge in node.dependencies:
                if edge.is_triggered_by(handler):
                    found = self._along(edge, indices)
                    before = self.seen.get((edge.target, edge.handler), ()) if edge.target in left else ()
                    if found.numel() and not any(torch.equal(found, one) for one in before):
                        self.add(edge.target, edge.handler, found)

    def _along(self, edge: Any, indices: Tensor) -> Tensor:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise Lost
        for mapping in filter(None, edge.index_mapping):
            if self._mapped + repeats(mapping) * indices.shape[1] > _MOST_INDICES and repeats(mapping) > 1:
                raise Lost  # before so many are made
            indices = renumbered(mapping, indices)
            self._mapped += indices.shape[1]
            if self._mapped > _MOST_INDICES:
                raise Lost
        return indices


def _read_as_one(width: int, seen: Iterable[Tensor]) -> Tensor | None:
    """For each row the number of the channel that it is of, where they are as many to each of all; else None."""
    found: Tensor | None = None
    for indices in seen:
        where, rows = indices.unique(dim=1)
        counts = where.unique_consecutive(return_counts=True)[1]
        if bool((counts == 1).all()):
            continue
        if bool((counts != counts[0]).any()):
            return None
        alike = rows.view(-1, int(counts[0])).unique(dim=0)  # some positions are of the same rows
        if not torch.equal(alike.flatten().sort().values, torch.arange(width)):
            return None
        first = alike[:, :1].expand(alike.shape).flatten()
        owner = torch.empty_like(first).scatter_(0, alike.flatten(), first).unique(return_inverse=True)[1]
        if found is not None and not torch.equal(owner, found):
            return None
        found = owner
    return found


def _merged(indices: Tensor) -> Tensor:
    """Each position once, as it came first."""
    order = indices[0].argsort(stable=True)
    where = indices[0][order]
    first = torch.ones_like(where, dtype=torch.bool)
    first[1:] = where[1:] != where[:-1]
    return indices[:, order[first].sort().values]
