"""Layers that multiply by a weight with rows and columns: `torch.nn.Linear`, and whatever a user writes like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds.base import Cut, LayerKind, select, set_sizes


@dataclass(frozen=True)
class WeightedKind(LayerKind):
    """A layer of one weight, channels last.

    weight, bias: names of its tensors; the bias may be None. out_dim, in_dim: the weight's dimensions of rows and of
    columns: 0 and 1 in either order; all others are taps. out_size, in_size: attributes that hold how many there are,
    "" where the layer has none.
    """

    counted: bool = True
    numbers: tuple[str, ...] | None = ()
    bias: str = "bias"
    out_size: str = ""
    in_size: str = ""

    def rows(self, module: nn.Module) -> int:
        return int(getattr(module, self.out_size) if self.out_size else self.content(module).shape[self.out_dim])

    def columns(self, module: nn.Module) -> int:
        return int(getattr(module, self.in_size) if self.in_size else self.content(module).shape[self.in_dim])

    def content(self, module: nn.Module) -> Tensor:
        """The weight's values."""
        weight: Tensor = getattr(module, self.weight).data
        return weight

    def blocks(self, module: nn.Module) -> Tensor:
        """The weight as (groups, rows of a group, columns of a group, taps); a view of a contiguous weight."""
        weight = self.content(module)
        weight = weight.flatten(2) if weight.dim() > 2 else weight.unsqueeze(-1)
        weight = weight.unflatten(0, (self.groups(module), -1))  # dim 0 of all of torch's weights is split by groups
        return weight if self.out_dim == 0 else weight.transpose(1, 2)

    def may_be_cut(self, module: nn.Module) -> bool:
        return isinstance(getattr(module, self.weight, None), nn.Parameter)  # not computed anew from others

    def can_lose(self, module: nn.Module, is_column: bool) -> bool:
        return self.may_be_cut(module) and not (is_column and self.is_depthwise(module))

    def channel_axis(self, module: nn.Module, dims: int) -> int:
        del module, dims
        return -1

    def zero_rows(self, module: nn.Module) -> Tensor:
        return (self.blocks(module) == 0).flatten(2).all(2).flatten()

    def zero_columns(self, module: nn.Module) -> Tensor:
        """Which columns are zero as a whole (bool, one a column)."""
        return (self.blocks(module) == 0).transpose(1, 2).flatten(2).all(2).flatten()

    def bias_of(self, module: nn.Module) -> Tensor | None:
        bias: Tensor | None = getattr(module, self.bias, None)
        return bias

    @property
    def bias_name(self) -> str:
        return self.bias

    def rounded(self, module: nn.Module) -> dict[str, int | None]:
        del module
        return {self.weight: self.out_dim}

    def cuts(self, module: nn.Module, keep_rows: Tensor | None, keep_columns: Tensor | None) -> dict[str, Cut]:
        result: dict[str, Cut] = {}
        if self.is_depthwise(module):
            keep_columns = None
        if keep_rows is not None and self.bias_of(module) is not None:
            result[self.bias] = partial(select, 0, keep_rows)
        groups = self.groups(module)

        def weight(tensor: Tensor) -> Tensor:
            if keep_columns is not None and groups > 1:
                tensor = _grouped_columns(tensor, keep_columns, groups)
            elif keep_columns is not None:
                tensor = select(self.in_dim, keep_columns, tensor)
            return tensor if keep_rows is None else select(self.out_dim, keep_rows, tensor)

        result[self.weight] = weight
        return result

    def fit(self, module: nn.Module, rows: int | None = None) -> None:
        shape = self.content(module).shape
        set_sizes(module, {self.out_size: shape[self.out_dim], self.in_size: shape[self.in_dim]})

    def samples(self, module: nn.Module, inputs: Tensor, outputs: Tensor, points: int) -> tuple[Tensor, Tensor] | None:
        if self.out_dim != 0 or self.content(module).dim() != 2:
            return None
        return inputs.reshape(-1, inputs.shape[-1]), outputs.reshape(-1, outputs.shape[-1])

    def patches(self, module: nn.Module, inputs: Tensor) -> Tensor | None:
        if self.out_dim != 0 or self.content(module).dim() != 2:
            return None
        return inputs.reshape(1, -1, inputs.shape[-1])

    def multiplies(self, module: nn.Module) -> tuple[str, ...]:
        known = self.out_dim == 0 and self.may_be_cut(module) and self.content(module).dim() == 2
        return (self.weight,) if known else ()

    def reads(self, module: nn.Module, weight: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> Tensor:
        read = self.patches(module, arguments[0] if arguments else next(iter(named.values())))
        assert read is not None, "asked of a layer that multiplies nothing"
        return read


LINEAR = WeightedKind(out_size="out_features", in_size="in_features")


def _grouped_columns(tensor: Tensor, keep: Tensor, groups: int) -> Tensor:
    """Columns of a grouped conv, as many in each group: its weight holds only the columns of the row's own group."""
    per_group = tensor.shape[1]
    kept = (keep.to(tensor.device) % per_group).view(groups, -1)
    parts = tensor.chunk(groups)
    return torch.cat([part.index_select(1, which) for part, which in zip(parts, kept, strict=True)])
