"""Masks: tensors of a weight's shape and dtype, 1 keeps and 0 prunes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from raydistill.errors import CheckpointError, Fault


def pruned_count(level: float, size: int) -> int:
    """How many of `size` weights a sparsity level prunes: a level between two whole numbers floors.

    A level meant as a whole number (0.29 of 100) can fall one unit in the last place short of it in binary; the
    guard is far below one weight in any tensor that fits a computer.
    """
    return min(size, math.floor(level * size * (1.0 + 4e-16) + 1e-9))


def smallest_mask(scores: Tensor, level: float) -> Tensor:
    """A mask that prunes exactly `pruned_count` of the smallest scores.

    Ties at the threshold are pruned in index order up to the count and no further, so never more than the target.
    The mask has the shape, dtype and device of `scores`.
    """
    count = pruned_count(level, scores.numel())
    mask = torch.ones_like(scores, memory_format=torch.contiguous_format)
    if count == 0:
        return mask
    flat = scores.reshape(-1)
    threshold = flat.kthvalue(count).values
    below = flat < threshold
    ties = (flat == threshold).nonzero().flatten()
    view = mask.view(-1)
    view.masked_fill_(below, 0)
    view[ties[: count - int(below.sum())]] = 0
    return mask


class MaskSet:
    """The masks of one model, multiplied into its weights in one fused call.

    Only parameters that have a mask are touched: an unpruned model costs nothing.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = dict(model.named_parameters())
        self._masks: dict[str, Tensor] = {}
        self._weights: list[Tensor] = []
        self._values: list[Tensor] = []

    def __contains__(self, name: str) -> bool:
        return name in self._masks

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def names(self) -> tuple[str, ...]:
        return tuple(self._masks)

    def set(self, name: str, mask: Tensor | None) -> None:
        """Put a mask in place, or take it away with None. Shape: the parameter's."""
        if mask is None:
            self._masks.pop(name, None)
        else:
            # The weight's own memory format: a contiguous mask on a channels_last weight leaves the fused path.
            weight = self._parameters[name]
            self._masks[name] = torch.empty_like(weight, requires_grad=False).copy_(mask)
        self._weights = [self._parameters[name].data for name in self._masks]
        self._values = list(self._masks.values())

    def apply(self) -> None:
        """Zero the pruned weights of all masked parameters, in place."""
        if self._values:
            torch._foreach_mul_(self._weights, self._values)

    def sparsity(self) -> dict[str, float]:
        """Fraction pruned by each mask."""
        return {name: 1.0 - float(mask.mean(dtype=torch.float64)) for name, mask in self._masks.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Masks as boolean tensors (True keeps), one byte a weight."""
        return {name: mask.bool() for name, mask in self._masks.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, mask in state.items():
            weight = self._parameters.get(name)
            if weight is None or weight.shape != mask.shape:
                rule = "the model has no weight of this name and shape"
                raise CheckpointError(
                    Fault(f"masks.{name}", rule, tuple(mask.shape), "the checkpoint belongs to another model")
                )
        self._masks.clear()
        for name in state:
            self.set(name, state[name])
