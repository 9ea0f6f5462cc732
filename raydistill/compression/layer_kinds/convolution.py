"""Convolutions of one to three dimensions, transposed ones too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from raydistill.compression.layer_kinds.base import set_sizes
from raydistill.compression.layer_kinds.weighted import WeightedKind


@dataclass(frozen=True)
class ConvolutionKind(WeightedKind):
    """Channels before the `len(kernel_size)` dimensions of the map. A transposed one has its rows in dim 1."""

    out_size: str = "out_channels"
    in_size: str = "in_channels"

    @property
    def transposed(self) -> bool:
        return self.out_dim == 1

    def groups(self, module: nn.Module) -> int:
        return _conv(module).groups

    def is_depthwise(self, module: nn.Module) -> bool:
        conv = _conv(module)
        return 1 < conv.groups == conv.in_channels == conv.out_channels

    def may_be_cut(self, module: nn.Module) -> bool:
        conv = _conv(module)
        if self.transposed and conv.groups > 1:
            return False
        one_filter_each = 1 < conv.groups == conv.out_channels and not self.is_depthwise(module)
        return super().may_be_cut(module) and not one_filter_each

    def channel_axis(self, module: nn.Module, dims: int) -> int:
        return -1 - len(_conv(module).kernel_size)

    def pads_with_zeros(self, module: nn.Module) -> bool:
        conv = _conv(module)
        if conv.padding_mode != "zeros":
            return False
        if isinstance(conv.padding, str):
            return conv.padding == "same" and any(size > 1 for size in conv.kernel_size)
        return any(size > 0 for size in conv.padding)

    def adds_evenly(self, module: nn.Module) -> bool:
        return not self.transposed

    def fit(self, module: nn.Module, rows: int | None = None) -> None:
        shape = self.content(module).shape
        if self.is_depthwise(module):
            set_sizes(module, dict.fromkeys(("groups", self.in_size, self.out_size), shape[0]))
        else:
            sizes = (shape[0], shape[1] * self.groups(module))  # dim 1 holds one group's
            set_sizes(module, {self.out_size: sizes[self.out_dim], self.in_size: sizes[self.in_dim]})

    def attributes(self, module: nn.Module) -> str:
        """Kernel, stride (s), dilation (d) and groups (g), those that are not 1."""
        conv = _conv(module)
        parts = [kernel_text(conv.kernel_size)]
        for letter, values in (("s", conv.stride), ("d", conv.dilation)):
            if any(value != 1 for value in values):
                parts.append(f"{letter}={values[0] if len(set(values)) == 1 else 'x'.join(map(str, values))}")
        if conv.groups != 1:
            parts.append(f"g={conv.groups}")
        return " ".join(parts)

    def samples(self, module: nn.Module, inputs: Tensor, outputs: Tensor, points: int) -> tuple[Tensor, Tensor] | None:
        conv = _conv(module)
        flat = len(conv.kernel_size) == 2 and not self.transposed
        if not flat or conv.groups != 1 or isinstance(conv.padding, str):
            return None
        patches = nn.functional.unfold(inputs, conv.kernel_size, conv.dilation, conv.padding, conv.stride)
        where = torch.randint(patches.shape[-1], (points,)).to(inputs.device)
        x = patches[:, :, where].transpose(1, 2).reshape(-1, patches.shape[1])
        y = outputs.flatten(2)[:, :, where].transpose(1, 2).reshape(-1, outputs.shape[1])
        return x, y

    def patches(self, module: nn.Module, inputs: Tensor) -> Tensor | None:
        conv = _conv(module)
        dims = len(conv.kernel_size)
        if dims > 2 or self.transposed:
            return None
        maps = inputs if inputs.dim() > dims + 1 else inputs.unsqueeze(0)
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        maps = nn.functional.pad(maps, conv._reversed_padding_repeated_twice, mode=mode)
        size, dilation, stride = (
            (1, *each) if dims == 1 else each for each in (conv.kernel_size, conv.dilation, conv.stride)
        )
        read = nn.functional.unfold(maps.unsqueeze(2) if dims == 1 else maps, size, dilation, 0, stride)
        return read.unflatten(1, (conv.groups, -1)).permute(1, 0, 3, 2).flatten(1, 2)

    def multiplies(self, module: nn.Module) -> tuple[str, ...]:
        conv = _conv(module)
        known = not self.transposed and len(conv.kernel_size) <= 2 and isinstance(conv.weight, nn.Parameter)
        return (self.weight,) if known else ()


CONVOLUTION = ConvolutionKind()
TRANSPOSED_CONVOLUTION = ConvolutionKind(out_dim=1, in_dim=0)


def kernel_text(sizes: Sequence[int]) -> str:
    """``k=3x3``; empty for a matrix."""
    return f"k={'x'.join(map(str, sizes))}" if sizes else ""


def _conv(module: nn.Module) -> _ConvNd:
    """The module with its attributes' types; it may be anything that has them."""
    return cast(_ConvNd, module)
