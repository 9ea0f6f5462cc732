"""What constants add to a layer, and giving its tensors other content: the arithmetic of thinning."""

from __future__ import annotations

import torch
from torch import Tensor


def response(blocks: Tensor, which: Tensor) -> Tensor:
    """What constant inputs of 1 in columns `which` add to each output away from the borders: (len(which), rows).

    blocks: a weight as `WeightedKind.blocks` has it, (groups, rows of a group, columns of a group, taps).
    """
    taps = blocks.sum(3)
    count, per_group = taps.shape[1], taps.shape[2]
    result = taps.new_zeros(len(which), taps.shape[0], count)
    group = which // per_group
    result[torch.arange(len(which), device=which.device), group] = taps[group, :, which % per_group]
    return result.flatten(1)


def zero_out(blocks: Tensor, which: Tensor, side: str) -> None:
    """Zero rows (side "out" or "through") or columns ("in") of a weight, in place."""
    if side == "in":
        per_group = blocks.shape[2]
        blocks[which // per_group, :, which % per_group] = 0
    else:
        per_group = blocks.shape[1]
        blocks[which // per_group, which % per_group] = 0


def put(tensor: Tensor, content: Tensor) -> None:
    """Give a parameter or buffer content of another shape, in its own memory format; the object stays the same.

    Optimizers, masks and policies that hold the tensor go on holding the right one. Its gradient goes.
    """
    layout = torch.contiguous_format
    for dims, candidate in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if tensor.dim() == dims and tensor.is_contiguous(memory_format=candidate) and not tensor.is_contiguous():
            layout = candidate
    content = content.to(tensor.dtype).contiguous(memory_format=layout)
    tensor.grad = None
    # A loss of an earlier step that is still alive holds the gradient accumulator of the old shape; torch makes a new
    # one only where the dtype changes.
    passing = torch.float32 if tensor.dtype == torch.float64 else torch.float64
    tensor.data = torch.empty(0, dtype=passing, device=tensor.device)
    tensor.data = content
