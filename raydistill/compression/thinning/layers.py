"""What constants add to a layer, and zeroing its rows and columns: the arithmetic of thinning."""

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
