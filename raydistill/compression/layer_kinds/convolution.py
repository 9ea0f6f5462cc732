"""Convolutions of one to three dimensions, transposed ones too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

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

    def groups(self, module: Any) -> int:
        return int(module.groups)

    def is_depthwise(self, module: Any) -> bool:
        return bool(1 < module.groups == module.in_channels == module.out_channels)

    def may_be_cut(self, module: Any) -> bool:
        if self.transposed and module.groups > 1:
            return False
        one_filter_each = 1 < module.groups == module.out_channels and not self.is_depthwise(module)
        return super().may_be_cut(module) and not one_filter_each

    def channel_axis(self, module: Any, dims: int) -> int:
        return -1 - len(module.kernel_size)

    def pads_with_zeros(self, module: Any) -> bool:
        if module.padding_mode != "zeros":
            return False
        if isinstance(module.padding, str):
            return module.padding == "same" and any(size > 1 for size in module.kernel_size)
        return any(size > 0 for size in module.padding)

    def adds_evenly(self, module: Any) -> bool:
        return not self.transposed

    def fit(self, module: Any, rows: int | None = None) -> None:
        shape = self.content(module).shape
        if self.is_depthwise(module):
            set_sizes(module, dict.fromkeys(("groups", self.in_size, self.out_size), shape[0]))
        else:
            sizes = (shape[0], shape[1] * module.groups)  # dim 1 holds one group's
            set_sizes(module, {self.out_size: sizes[self.out_dim], self.in_size: sizes[self.in_dim]})

    def attributes(self, module: Any) -> str:
        """Kernel, stride (s), dilation (d) and groups (g), those that are not 1."""
        parts = [kernel_text(module.kernel_size)]
        for letter, values in (("s", module.stride), ("d", module.dilation)):
            if any(value != 1 for value in values):
                parts.append(f"{letter}={values[0] if len(set(values)) == 1 else 'x'.join(map(str, values))}")
        if module.groups != 1:
            parts.append(f"g={module.groups}")
        return " ".join(parts)

    def samples(self, module: Any, inputs: Tensor, outputs: Tensor, points: int) -> tuple[Tensor, Tensor] | None:
        flat = len(module.kernel_size) == 2 and not self.transposed
        if not flat or module.groups != 1 or isinstance(module.padding, str):
            return None
        patches = nn.functional.unfold(inputs, module.kernel_size, module.dilation, module.padding, module.stride)
        where = torch.randint(patches.shape[-1], (points,)).to(inputs.device)
        x = patches[:, :, where].transpose(1, 2).reshape(-1, patches.shape[1])
        y = outputs.flatten(2)[:, :, where].transpose(1, 2).reshape(-1, outputs.shape[1])
        return x, y


CONVOLUTION = ConvolutionKind()
TRANSPOSED_CONVOLUTION = ConvolutionKind(out_dim=1, in_dim=0)


def kernel_text(sizes: Sequence[int]) -> str:
    """``k=3x3``; empty for a matrix."""
    return f"k={'x'.join(map(str, sizes))}" if sizes else ""
