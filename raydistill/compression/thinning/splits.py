"""Splits of channels that Torch-Pruning does not look into: along the last dimension, as of a gate and what it gates.

Where a network has a parameter of three dimensions (a table of positions), the library follows none of the splits
behind it, as tokens may be what is split.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from torch_pruning import ops
from torch_pruning.dependency.index_mapping import _SplitIndexMapping

if TYPE_CHECKING:
    from torch_pruning.dependency import DependencyGraph, Node


def follow_splits(graph: DependencyGraph) -> None:
    """Tell a graph of the library's, built, where channels go that are split along the last dimension of a tensor."""
    for node in graph.module2node.values():
        sizes = _parts(node) if node.type == ops.OPTYPE.SPLIT else ()
        if len(sizes) != len(node.outputs):
            continue
        for reader, offset in zip(node.outputs, map(list, pairwise(accumulate(sizes, initial=0))), strict=True):
            for source, target, back in ((node, reader, False), (reader, node, True)):
                for edge in source.dependencies:
                    if edge.target is target and edge.index_mapping[0] is None:
                        edge.index_mapping[0] = _SplitIndexMapping(offset, reverse=back)
                        break


def _parts(node: Node) -> tuple[int, ...]:
    """Of how many channels the parts are; () where it is no split along the last of three or more dimensions."""
    shape: tuple[int, ...] = getattr(node.grad_fn, "_saved_self_sym_sizes", ())
    if len(shape) < 3 or node.grad_fn._saved_dim not in (len(shape) - 1, 2**64 - 1):  # as a number without a sign
        return ()
    sizes = getattr(node.grad_fn, "_saved_split_sizes", None)
    if sizes is not None:
        return tuple(sizes)
    whole, part = shape[-1], node.grad_fn._saved_split_size
    return tuple(min(part, whole - begin) for begin in range(0, whole, part))
