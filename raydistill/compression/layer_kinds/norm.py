"""Normalizations that keep channels apart (batch and instance norms), or groups of them (group norms), and PReLU, which
has a slope a channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from raydistill.compression.layer_kinds.base import LayerKind, along, one_each, set_sizes


@dataclass(frozen=True)
class NormKind(LayerKind):
    """Channels in dim 1. Its tensors, all of which it may lack, are one number a channel."""

    norm: bool = True
    numbers: tuple[str, ...] | None = ()

    def rows(self, module: nn.Module) -> int:
        return _norm(module).num_features

    def channel_axis(self, module: nn.Module, dims: int) -> int:
        return 1 - dims

    def zero_rows(self, module: nn.Module) -> Tensor:
        scale = _norm(module).weight
        return torch.zeros(self.rows(module), dtype=torch.bool) if scale is None else scale.data == 0

    def fit(self, module: nn.Module, rows: int | None = None) -> None:
        norm = _norm(module)
        first = norm.weight if norm.weight is not None else norm.running_mean
        if rows is None and first is not None:
            rows = len(first)
        if rows is not None:
            set_sizes(module, {"num_features": rows})


@dataclass(frozen=True)
class GroupNormKind(NormKind):
    """Channels in dim 1. A whole group may go: the others are normalized without it in any case."""

    def rows(self, module: nn.Module) -> int:
        return cast(nn.GroupNorm, module).num_channels

    def together(self, module: nn.Module) -> int:
        norm = cast(nn.GroupNorm, module)
        return norm.num_channels // norm.num_groups

    def fit(self, module: nn.Module, rows: int | None = None) -> None:
        norm, each = cast(nn.GroupNorm, module), self.together(module)
        if norm.weight is not None:
            rows = len(norm.weight)
        if rows is not None:
            set_sizes(module, {"num_channels": rows, "num_groups": rows // each})


@dataclass(frozen=True)
class SlopeKind(LayerKind):
    """PReLU: a slope for negative values, one a channel or one for all."""

    def rows(self, module: nn.Module) -> int:
        return cast(nn.PReLU, module).num_parameters

    def keeps_apart(self, module: nn.Module) -> bool:
        return self.rows(module) > 1

    def fit(self, module: nn.Module, rows: int | None = None) -> None:
        set_sizes(module, {"num_parameters": len(cast(nn.PReLU, module).weight)})


@dataclass(frozen=True)
class ResponseNormKind(LayerKind):
    """Global response norms (Woo et al. 2023, arXiv 2301.00808, section 3.2): x + bias + weight * x * g / (m + eps), g
    the L2 norm of a channel's map and m the mean of g over all C channels.

    A channel of zeros gives its bias and adds nothing to m but counts in C. Where C' channels are left, m is C / C'
    times what it was; with weight and eps taken times C / C' the others stay as they were. The module holds weight and
    bias, (C,) or with dimensions of one entry beside it, and, unless channels are last, their dimension as channel_dim.

    eps: what its code has written in, where the module does not hold it.
    """

    norm: bool = True
    counts_all: bool = True
    numbers: tuple[str, ...] | None = ()
    eps: float | None = None

    def rows(self, module: nn.Module) -> int:
        return cast(Tensor, module.weight).numel()

    def may_be_cut(self, module: nn.Module) -> bool:
        held = getattr(module, "weight", None), getattr(module, "bias", None)
        whole = all(isinstance(each, nn.Parameter) and one_each(each) for each in held)
        return whole and type(self.number(module, "eps")) is float

    def can_lose(self, module: nn.Module, is_column: bool) -> bool:
        return not is_column and self.may_be_cut(module)

    def channel_axis(self, module: nn.Module, dims: int) -> int:
        weight = cast(Tensor, module.weight)
        axis = int(getattr(module, "channel_dim", along(weight) - weight.dim()))
        return axis if axis < 0 else axis - dims

    def number(self, module: nn.Module, name: str) -> object:
        return self.eps if name == "eps" and self.eps is not None else super().number(module, name)

    def factors(self, module: nn.Module, share: float) -> dict[str, float]:
        del module
        return {"weight": share}

    def moved_numbers(self, module: nn.Module, share: float) -> dict[str, tuple[float, float]]:
        eps = cast(float, self.number(module, "eps"))
        return {"eps": (eps, eps * share)}

    def fit(self, module: nn.Module, rows: int | None = None) -> None:
        """A norm with eps in its code is a `HeldResponseNorm` from now on; object, names and parameters stay."""
        if self.eps is not None:
            module.__class__ = HeldResponseNorm
            cast(HeldResponseNorm, module).eps = self.eps


BATCH_NORM = NormKind(batch_norm=True)
INSTANCE_NORM = NormKind()
GROUP_NORM = GroupNormKind()
PRELU = SlopeKind()
RESPONSE_NORM = ResponseNormKind()


class HeldResponseNorm(nn.Module):
    """A global response norm that holds its eps. A model never builds one: `ResponseNormKind.fit` makes it."""

    layer_kind = RESPONSE_NORM
    weight: nn.Parameter
    bias: nn.Parameter
    eps: float

    def forward(self, x: Tensor) -> Tensor:
        """Maps of the channels (B, H, W, C), or where its weight is (C, 1, 1) or (1, C, 1, 1) (B, C, H, W)."""
        axis = self.layer_kind.channel_axis(self, x.dim())
        over = tuple(dim for dim in range(1, x.dim()) if dim != axis % x.dim())
        size = torch.linalg.vector_norm(x, dim=over, keepdim=True)
        return x + self.bias + self.weight * (x * (size / (size.mean(axis, keepdim=True) + self.eps)))


def _norm(module: nn.Module) -> _NormBase:
    """The module with its attributes' types; it may be anything that has them."""
    return cast(_NormBase, module)
