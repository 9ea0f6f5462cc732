"""The layers that thinning cuts: which entries of their tensors belong to an output or an input channel.

A *row* is an output channel (a filter of a conv, an output of a linear layer), a *column* an input channel. Batch and
instance norms, PReLU and depthwise convs carry each channel *through*: what they hold for it counts as its row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

Cut = Callable[[Tensor], Tensor]
NORMS = (_BatchNorm, _InstanceNorm)
WEIGHTED = (_ConvNd, nn.Linear)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)


def is_depthwise(module: nn.Module) -> bool:
    """One filter a channel, each reading its own channel only."""
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels == module.out_channels


def groups_of(module: nn.Module) -> int:
    return module.groups if isinstance(module, _ConvNd) else 1


def is_transposed(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and module.transposed


def rows(module: nn.Module) -> int:
    """How many output channels a layer has."""
    if isinstance(module, _ConvNd):
        return module.out_channels
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.PReLU):
        return module.num_parameters
    return int(module.num_features)  # type: ignore[arg-type]


def columns(module: nn.Module) -> int:
    return module.in_channels if isinstance(module, _ConvNd) else int(module.in_features)  # type: ignore[arg-type]


def blocks(module: nn.Module) -> Tensor:
    """A weight as (groups, rows of a group, columns of a group, taps of the kernel); a view of a contiguous weight."""
    weight: Tensor = module.weight.data  # type: ignore[union-attr, assignment]
    if is_transposed(module):
        return weight.flatten(2).transpose(0, 1).unsqueeze(0)
    if isinstance(module, nn.Linear):
        return weight.unsqueeze(0).unsqueeze(-1)
    return weight.flatten(2).unflatten(0, (groups_of(module), -1))


def zero_rows(module: nn.Module) -> Tensor:
    """Which rows are zero as a whole (bool, one a row); of a norm: which channels it scales by zero."""
    if isinstance(module, WEIGHTED):
        return (blocks(module) == 0).flatten(2).all(2).flatten()
    if isinstance(module, NORMS) and module.weight is not None:
        return module.weight.data == 0
    return torch.zeros(rows(module), dtype=torch.bool)


def zero_columns(module: nn.Module) -> Tensor:
    """Which columns are zero as a whole (bool, one a column)."""
    return (blocks(module) == 0).transpose(1, 2).flatten(2).all(2).flatten()


def pads_with_zeros(module: nn.Module) -> bool:
    """Whether the borders see fewer taps, so that a constant channel adds something else there."""
    if not isinstance(module, _ConvNd) or module.padding_mode != "zeros":
        return False
    if isinstance(module.padding, str):
        return module.padding == "same" and any(size > 1 for size in module.kernel_size)
    return any(size > 0 for size in module.padding)


def response(module: nn.Module, which: Tensor) -> Tensor:
    """What constant inputs of 1 in columns `which` add to each output away from the borders: (len(which), rows)."""
    taps = blocks(module).sum(3)
    count, per_group = taps.shape[1], taps.shape[2]
    result = taps.new_zeros(len(which), taps.shape[0], count)
    group = which // per_group
    result[torch.arange(len(which), device=which.device), group] = taps[group, :, which % per_group]
    return result.flatten(1)


def zero_out(module: nn.Module, which: Tensor, side: str) -> None:
    """Zero rows (side "out" or "through") or columns ("in") of a weight, in place."""
    weight = blocks(module)
    if side == "in":
        per_group = weight.shape[2]
        weight[which // per_group, :, which % per_group] = 0
    else:
        per_group = weight.shape[1]
        weight[which // per_group, which % per_group] = 0


def cuts(module: nn.Module, keep_rows: Tensor | None, keep_columns: Tensor | None) -> dict[str, Cut]:
    """For each tensor of a layer, by its name there, the function that keeps these rows and columns (sorted indices).

    The same function cuts what has the tensor's shape: masks, gradients, the optimizer's moments.
    """
    if not isinstance(module, WEIGHTED):
        names = [name for name, tensor in _own_tensors(module) if tensor.dim() == 1 and len(tensor) > 1]
        return {} if keep_rows is None else {name: partial(_select, 0, keep_rows) for name in names}
    result: dict[str, Cut] = {}
    if is_depthwise(module):
        keep_columns = None
    if keep_rows is not None and module.bias is not None:
        result["bias"] = partial(_select, 0, keep_rows)
    transposed, groups = is_transposed(module), groups_of(module)

    def weight(tensor: Tensor) -> Tensor:
        if keep_columns is not None and groups > 1:
            tensor = _grouped_columns(tensor, keep_columns, groups)
        elif keep_columns is not None:
            tensor = _select(0 if transposed else 1, keep_columns, tensor)
        return tensor if keep_rows is None else _select(1 if transposed else 0, keep_rows, tensor)

    result["weight"] = weight
    return result


def fit_attributes(module: nn.Module) -> None:
    """Set the widths a layer knows of itself (``out_channels``, ``num_features``, ...) to those of its tensors."""
    if isinstance(module, _ConvNd):
        shape = module.weight.shape
        if is_depthwise(module):
            module.groups = module.in_channels = module.out_channels = shape[0]
        elif module.transposed:
            module.in_channels, module.out_channels = shape[0], shape[1] * module.groups
        else:
            module.out_channels, module.in_channels = shape[0], shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
    elif isinstance(module, NORMS):
        first = module.weight if module.weight is not None else module.running_mean
        if first is not None:
            module.num_features = len(first)


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


def _own_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]


def _select(dim: int, keep: Tensor, tensor: Tensor) -> Tensor:
    return tensor.index_select(dim, keep.to(tensor.device))


def _grouped_columns(tensor: Tensor, keep: Tensor, groups: int) -> Tensor:
    """Columns of a grouped conv, as many in each group: its weight holds only the columns of the row's own group."""
    per_group = tensor.shape[1]
    kept = (keep.to(tensor.device) % per_group).view(groups, -1)
    parts = tensor.chunk(groups)
    return torch.cat([part.index_select(1, which) for part, which in zip(parts, kept, strict=True)])
