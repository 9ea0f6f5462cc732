"""What is coupled with a layer's channels: a walk over the edges of Torch-Pruning's dependency graph.

The library's own walk finds out how channels are renumbered anew for each layer, and looks through all that it has seen
at each step. Nothing is cut while groups are looked for, so the numbers stay as they were when the graph was built.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """All that goes with the rows of a layer, that one first.

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
    return [
        Reached(node, handler, *_merged(parts))
        for (node, handler), parts in walk.seen.items()
        if id(node.module) not in ignored
    ]


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


def _merged(parts: list[Tensor]) -> Tensor:
    """Each position once, as it came first; one part as it is."""
    if len(parts) == 1:
        return parts[0]
    every = torch.cat(parts, 1)
    order = every[0].argsort(stable=True)
    where = every[0][order]
    first = torch.ones_like(where, dtype=torch.bool)
    first[1:] = where[1:] != where[:-1]
    return every[:, order[first].sort().values]
