"""Taking rows and columns out of a model in place, with gradients and the optimizer's state."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raydistill.compression.layer_kinds import Cut, kind_of
from raydistill.compression.quantizers.network import Quantization, quantization_of, weight_prefix

Sides = tuple[Tensor | None, Tensor | None]
"""Sorted int64 indices of the rows and of the columns that stay; None: all."""


@torch.no_grad()
def cut(model: nn.Module, stays: Mapping[str, Sides], optimizer: Optimizer | None = None) -> dict[str, Cut]:
    """stays: by layer. Parameters and buffers remain the same objects.

    Returns what was done, by the name of each parameter and buffer: a function that cuts whatever has its shape.
    """
    done: dict[str, Cut] = {}
    already: set[int] = set()  # a tensor that two layers share is cut once
    held = quantization_of(model)
    for name, (rows, columns) in stays.items():
        module = model.get_submodule(name)
        kind = kind_of(module)
        factors = {} if rows is None else kind.factors(module, kind.rows(module) / len(rows))
        for attribute, factor in factors.items():
            getattr(module, attribute).data.mul_(factor)
        for attribute, change in kind.cuts(module, rows, columns).items():
            if id(getattr(module, attribute)) in already:
                continue
            already.add(id(getattr(module, attribute)))
            before = getattr(module, attribute).shape
            cut_tensor(getattr(module, attribute), change, optimizer)
            done[(own := f"{name}.{attribute}" if name else attribute)] = change
            if held is not None and own in held.weight_names():
                done |= _cut_rounding(held, own, before, change, optimizer)
        kind.fit(module, None if rows is None else len(rows))
    return done


def _cut_rounding(
    held: Quantization, name: str, shape: torch.Size, change: Cut, optimizer: Optimizer | None
) -> dict[str, Cut]:
    """What is held for each channel of a quantized weight, which had this shape, goes with its channel."""
    axis, tensors = held.weight(name).of_channels()
    wide = [1] * len(shape)
    wide[axis] = -1

    def along(tensor: Tensor) -> Tensor:
        cut_ = change(tensor.view(wide).expand(shape)).movedim(axis, 0)
        return cut_.flatten(1)[:, 0].clone()

    for tensor in tensors.values():
        cut_tensor(tensor, along, optimizer)
    return {f"{weight_prefix(name)}.{attribute}": along for attribute in tensors}


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


def cut_tensor(tensor: Tensor, change: Cut, optimizer: Optimizer | None) -> None:
    """Cut a parameter or buffer in place, with its gradient and what an optimizer holds of its shape."""
    state = optimizer.state.get(tensor, {}) if optimizer is not None else {}
    moments = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.dim() > 0}
    if all(moment.shape == tensor.shape for moment in moments.values()):
        state.update({key: change(moment) for key, moment in moments.items()})
    else:
        state.clear()
    gradient = None if tensor.grad is None else change(tensor.grad)
    put(tensor, change(tensor.data))
    tensor.grad = gradient
