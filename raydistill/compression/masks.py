"""Masks: tensors of a weight's shape and dtype, 1 keeps and 0 prunes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from raydistill.compression.ranks import Ranks
from raydistill.compression.structure import StructureChange
from raydistill.errors import CheckpointError, ConfigError, Fault


def pruned_count(level: float, size: int) -> int:
    """How many of `size` weights a sparsity level prunes: a level between two whole numbers floors.

    A level meant as a whole number (0.29 of 100) can fall one unit in the last place short of it in binary; the
    guard is far below one weight in any tensor that fits a computer.
    """
    return min(size, math.floor(level * size * (1.0 + 4e-16) + 1e-9))


def smallest_mask(scores: Tensor, level: float) -> Tensor:
    """A mask that prunes exactly `pruned_count` of the smallest scores, see `mask_of_smallest`."""
    return mask_of_smallest(scores, pruned_count(level, scores.numel()))


def mask_of_smallest(scores: Tensor, count: int) -> Tensor:
    """A mask that prunes exactly so many of the smallest scores.

    Ties at the threshold are pruned in index order up to the count and no further, so never more than the target.
    The mask has the shape, dtype and device of `scores`.
    """
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


def largest_of_each_group(scores: Tensor, n: int, m: int) -> Tensor:
    """The mask that keeps the `n` largest of every `m` adjacent columns (last dimension); of equal ones the first."""
    groups = scores.reshape(-1, m)
    kept = groups.sort(dim=1, descending=True, stable=True).indices[:, :n]
    return torch.zeros_like(groups).scatter_(1, kept, 1.0).reshape(scores.shape)


class MaskSet:
    """The masks of one model, multiplied into its weights in one fused call.

    Only parameters that have a mask are touched: an unpruned model costs nothing. A mask is *in force* after every
    optimizer step, or, set with ``forward_only``, only where its policy calls `mask_for_forward`: then training moves
    the pruned weights too, and `restore_copies` can bring back what they were before the mask.

    ranks: of several processes that train the model together; policies settle with them what the masks are.
    changes: counts up whenever a mask may have changed. listeners: called with each `StructureChange` of the model when
    its weights and masks are cut; a `CompressionScheduler` is one, and tells its policies.
    """

    def __init__(self, model: nn.Module, ranks: Ranks | None = None) -> None:
        self.ranks = ranks or Ranks()
        self.changes = 0
        self.listeners: list[Callable[[StructureChange], None]] = []
        self._parameters = dict(model.named_parameters())
        self._masks: dict[str, Tensor] = {}
        self._forward_only: set[str] = set()
        self._copies: dict[str, Tensor] = {}
        self._places = _places(self._parameters)
        self._fused: tuple[list[Tensor], list[Tensor]] | None = ([], [])

    def __contains__(self, name: str) -> bool:
        return name in self._masks

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def names(self) -> tuple[str, ...]:
        return tuple(self._masks)

    def forward_only(self) -> list[str]:
        """Names of the masks that are not in force between forward passes."""
        return sorted(self._forward_only)

    def parameter(self, name: str) -> nn.Parameter:
        """The model's parameter of this name as it is now; thinning replaces parameters."""
        return self._parameters[name]

    def set(self, name: str, mask: Tensor | None, forward_only: bool = False) -> None:
        """Put a mask in place, or take it away with None. Shape: the parameter's."""
        if mask is None:
            self._masks.pop(name, None)
            self._forward_only.discard(name)
        else:
            # The weight's own memory format: a contiguous mask on a channels_last weight leaves the fused path.
            weight = self._parameters[name]
            self._masks[name] = torch.empty_like(weight, requires_grad=False).copy_(mask)
            if forward_only:
                self._forward_only.add(name)
            else:
                self._forward_only.discard(name)
        self._fused = None
        self.changes += 1

    def apply(self) -> None:
        """Zero the pruned weights of all parameters whose mask is in force, in place."""
        if self._fused is None:
            names = [name for name in self._masks if name not in self._forward_only]
            self._fused = ([self._parameters[name].data for name in names], [self._masks[name] for name in names])
        if self._fused[0]:
            torch._foreach_mul_(*self._fused)

    def mask_for_forward(self, names: Iterable[str], keep_copies: bool) -> None:
        """Mask these weights for the forward pass to come; keep_copies: remember what they were."""
        present = [name for name in names if name in self._masks]
        if keep_copies:
            self._copies.update((name, self._parameters[name].detach().clone()) for name in present)
        if present:
            weights = [self._parameters[name].data for name in present]
            torch._foreach_mul_(weights, [self._masks[name] for name in present])

    @torch.no_grad()
    def restore_copies(self, names: Iterable[str]) -> None:
        """Undo `mask_for_forward`: the optimizer updates the unmasked weights with the masked ones' gradients."""
        for name in names:
            copy = self._copies.pop(name, None)
            if copy is not None:
                self._parameters[name].copy_(copy)

    def mask_gradients(self, names: Iterable[str]) -> None:
        """Multiply the gradients of these weights by their masks."""
        for name in names:
            gradient = self._parameters[name].grad
            if name in self._masks and gradient is not None:
                gradient.mul_(self._masks[name])

    def follow(self, model: nn.Module, wanted: Iterable[str] = ()) -> None:
        """Notice parameters that were replaced (a new head, ``load_state_dict(assign=True)``) or moved to another
        device, and take those of the same name and shape instead; their masks are applied.

        wanted: names that are to get masks yet.

        Raises:
            ConfigError: one of those, or with a mask, is gone or of another shape.
        """
        present = dict(model.named_parameters())
        for name in {**self._masks, **dict.fromkeys(wanted)}:
            if name not in present:
                rule = "is gone from the model since the scheduler was built"
            elif present[name].shape != self._parameters.get(name, present[name]).shape:
                rule = f"is of shape {tuple(present[name].shape)}, it had another when the scheduler was built"
            else:
                continue
            raise ConfigError(Fault(name, rule, way_out="build the scheduler after the model is changed"))
        moved = [
            name
            for name, parameter in present.items()
            if name not in self._parameters
            or parameter is not self._parameters[name]
            or self._places.get(name) != parameter.data_ptr()
        ]
        if not moved and len(present) == len(self._parameters):
            return
        self._parameters = present
        self._places = _places(present)
        for name in [name for name in moved if name in self._masks]:
            self.set(name, self._masks[name], name in self._forward_only)
        self._fused = None
        self.apply()

    def rebind(self, model: nn.Module, masks: Mapping[str, Tensor], happened: StructureChange | None = None) -> None:
        """Follow a model whose parameters were replaced or cut; `masks` take the place of all that were set.

        happened: what all listeners are told then; None where they need not know.
        """
        forward_only = self._forward_only & set(masks)
        self._parameters = dict(model.named_parameters())
        self._places = _places(self._parameters)
        self._masks.clear()
        self._forward_only.clear()
        self._copies.clear()
        self._fused = None
        self.changes += 1
        for name, mask in masks.items():
            self.set(name, mask, name in forward_only)
        if happened is not None and happened.change:
            for listener in self.listeners:
                listener(happened)

    def sparsity(self) -> dict[str, float]:
        """Fraction pruned by each mask."""
        return {name: 1.0 - float(torch.count_nonzero(mask)) / mask.numel() for name, mask in self._masks.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Masks as boolean tensors (True keeps), one byte a weight; one that also scales stays as it is."""
        return {name: mask.bool() if _is_binary(mask) else mask.clone() for name, mask in self._masks.items()}

    def load_state_dict(self, state: Mapping[str, Tensor], forward_only: Iterable[str] = ()) -> None:
        """forward_only: names whose masks act in the forward pass only, as their policies say."""
        for name, mask in state.items():
            weight = self._parameters.get(name)
            if weight is None or weight.shape != mask.shape:
                rule = "the model has no weight of this name and shape"
                raise CheckpointError(
                    Fault(f"masks.{name}", rule, tuple(mask.shape), "the checkpoint belongs to another model")
                )
        self._masks.clear()
        self.changes += 1
        forward_only = set(forward_only)
        for name in state:
            self.set(name, state[name], name in forward_only)


def _places(parameters: Mapping[str, Tensor]) -> dict[str, int]:
    """Where each parameter's values are; ``model.to`` puts others into the same parameter."""
    return {name: 0 if is_lazy(parameter) else parameter.data_ptr() for name, parameter in parameters.items()}


def _is_binary(mask: Tensor) -> bool:
    return bool(torch.all((mask == 0) | (mask == 1)))
