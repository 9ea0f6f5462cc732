"""How channels are renumbered from one node of Torch-Pruning's dependency graph to the next: its index mappings, on all
indices at once.

Indices are int64 tensors (2, n): position in the node, and the channel of the layer that a walk began at which it is
(-1 where the library does not know). The library's own mappings go through them one by one, in Python; behind a reshape
that it misunderstands a layer has hundreds of thousands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Lost(Exception):
    """Where channels go cannot be told: mappings go in circles, or the library does not know a size."""


class Index(NamedTuple):
    """One index, by the names that the library's mappings read and write."""

    idx: int
    root_idx: int | None


def renumbered(mapping: Any, indices: Tensor) -> Tensor:
    """What an index mapping of the library makes of these.

    Raises:
        Lost: it lacks what it needs.
    """
    own = _ON_TENSORS.get(type(mapping).__name__)
    if own is not None:
        return own(mapping, indices)
    found = mapping([Index(*pair) for pair in indices.T.tolist()])
    pairs = [(each.idx, -1 if each.root_idx is None else each.root_idx) for each in found]
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T


def repeats(mapping: Any) -> int:
    """As how many it gives each index out, where that is known beforehand; else 1."""
    flattens = type(mapping).__name__ == "_FlattenIndexMapping" and not mapping.reverse
    return int(mapping._stride) if flattens else 1


def _flatten(mapping: Any, indices: Tensor) -> Tensor:
    where, channels = indices
    stride = mapping._stride
    if mapping.reverse:
        return torch.stack([where // stride, channels]).unique(dim=1)
    spread = where.unsqueeze(1) * stride + torch.arange(stride)
    return torch.stack([spread.flatten(), channels.repeat_interleave(stride)])


def _shift(into: bool) -> Callable[[Any, Tensor], Tensor]:
    """Of a part at an offset in a whole; the mapping goes into the whole, or (where it is reversed) out of it."""

    def shift(mapping: Any, indices: Tensor) -> Tensor:
        if mapping.reverse != into:
            return _moved(indices, mapping.offset[0])
        if len(mapping.offset) < 2:  # of a split into parts of sizes that are not known
            raise Lost
        begin, end = mapping.offset
        inside = (indices[0] >= begin) & (indices[0] < end)
        return _moved(indices[:, inside], -begin)

    return shift


def _slice(mapping: Any, indices: Tensor) -> Tensor:
    where, channels = indices
    if mapping.reverse:
        return torch.stack([where * mapping.step + mapping.start, channels])
    inside = (where >= mapping.start) & (where < mapping.end) & ((where - mapping.start) % mapping.step == 0)
    return torch.stack([(where[inside] - mapping.start) // mapping.step, channels[inside]])


def _moved(indices: Tensor, by: int) -> Tensor:
    return torch.stack([indices[0] + by, indices[1]])


_ON_TENSORS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "_FlattenIndexMapping": _flatten,
    "_ConcatIndexMapping": _shift(into=True),
    "_SplitIndexMapping": _shift(into=False),
    "_SliceIndexMapping": _slice,
}
"""By name of the library's class; all others are asked themselves."""
