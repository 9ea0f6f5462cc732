"""torchvision's attention in windows, with heads that need not fill the width that it reads.

Shapes: maps (B, H, W, C); windows (B, windows, T, C) of T tokens each; by head (B, windows, heads, T, width of a head).
A model never builds one of these: `RewrittenKind.before_cut` makes it of torchvision's own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

_UNSEEN = -100.0
"""What is added to scores of tokens that a shift has brought beside each other, as there."""


class WindowAttention(ShiftedWindowAttention):
    """Of Swin (Liu et al. 2021, arXiv 2103.14030). Scores are scaled by `head_dim`, the width that heads had before."""

    head_dim: int

    @classmethod
    def take_over(cls, module: Any, stays: object) -> None:
        if not isinstance(module, cls):
            module.head_dim = module.qkv.in_features // module.num_heads
            module.__class__ = cls

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = functional.pad(x, (0, 0, 0, -width % self.window_size[1], 0, -height % self.window_size[0]))
        padded = x.shape[1:3]
        shifts = [s if size > w else 0 for s, w, size in zip(self.shift_size, self.window_size, padded, strict=True)]
        windows = _windows(_rolled(x, [-shift for shift in shifts]), self.window_size)
        q, k, v = _by_head(self._qkv(windows), self.num_heads, self.proj.in_features)
        scores = self._scores(q, k) + self.get_relative_position_bias()
        if any(shifts):
            scores = scores + _apart(padded, self.window_size, shifts, x)
        weights = functional.dropout(functional.softmax(scores, -1), self.attention_dropout, self.training)
        mixed = self.proj((weights @ v).transpose(2, 3).flatten(3))
        mixed = functional.dropout(mixed, self.dropout, self.training)
        return _rolled(_maps(mixed, self.window_size, padded), shifts)[:, :height, :width].contiguous()

    def _qkv(self, windows: Tensor) -> Tensor:
        return self.qkv(windows)

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        return (q * self.head_dim**-0.5) @ k.transpose(-2, -1)


class CosineAttention(WindowAttention, ShiftedWindowAttentionV2):
    """Of Swin V2 (Liu et al. 2022, arXiv 2111.09883): cosines, a scale for each head; keys have no bias."""

    forward = WindowAttention.forward

    def _qkv(self, windows: Tensor) -> Tensor:
        bias: Tensor | None = self.qkv.bias
        if bias is not None:
            inner = self.proj.in_features
            scored = (len(bias) - inner) // 2
            bias = torch.cat([bias[:scored], torch.zeros_like(bias[:scored]), bias[-inner:]])
        return functional.linear(windows, self.qkv.weight, bias)

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        cosines = functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).transpose(-2, -1)
        return cosines * self.logit_scale.clamp(max=math.log(100.0)).exp()


class GridAttention(RelativePositionalMultiHeadAttention):
    """Of MaxViT (Tu et al. 2022, arXiv 2204.01697); what it reads is in windows already."""

    @classmethod
    def take_over(cls, module: nn.Module, stays: object) -> None:
        module.__class__ = cls

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = _by_head(self.to_qkv(x), self.n_heads, self.merge.in_features)
        scores = q @ (k * self.scale_factor).transpose(-2, -1) + self.get_relative_positional_bias()
        return self.merge((functional.softmax(scores, -1) @ v).transpose(2, 3).flatten(3))


def _by_head(qkv: Tensor, heads: int, inner: int) -> list[Tensor]:
    """Queries, keys and values; `inner` channels are of values, queries and keys share the rest."""
    scored = (qkv.shape[-1] - inner) // 2
    parts = qkv.split([scored, scored, inner], -1)
    return [part.unflatten(-1, (heads, part.shape[-1] // heads)).transpose(2, 3) for part in parts]


def _windows(maps: Tensor, window: list[int]) -> Tensor:
    high, wide = maps.shape[1] // window[0], maps.shape[2] // window[1]
    tiles = maps.reshape(maps.shape[0], high, window[0], wide, window[1], maps.shape[3]).transpose(2, 3)
    return tiles.reshape(maps.shape[0], high * wide, window[0] * window[1], maps.shape[3])


def _maps(windows: Tensor, window: list[int], size: torch.Size) -> Tensor:
    high, wide, channels = size[0] // window[0], size[1] // window[1], windows.shape[-1]
    tiles = windows.reshape(windows.shape[0], high, wide, window[0], window[1], channels).transpose(2, 3)
    return tiles.reshape(windows.shape[0], size[0], size[1], channels)


def _rolled(maps: Tensor, shifts: list[int]) -> Tensor:
    return torch.roll(maps, shifts, (1, 2)) if any(shifts) else maps


def _apart(size: torch.Size, window: list[int], shifts: list[int], like: Tensor) -> Tensor:
    """What is added to the scores of shifted windows: (windows, 1, T, T)."""
    regions = []
    for length, span, shift in zip(size, window, shifts, strict=True):
        at = torch.arange(length, device=like.device)
        regions.append((at >= length - span).long() + (at >= length - shift).long() if shift else at * 0)
    numbers = (3 * regions[0][:, None] + regions[1]).view(1, size[0], size[1], 1)
    of = _windows(numbers, window).view(-1, window[0] * window[1])
    differs = of[:, :, None] != of[:, None, :]
    return torch.zeros_like(differs, dtype=like.dtype).masked_fill(differs, _UNSEEN).unsqueeze(1)
