"""Straight-through gradients: rounding has none, so what comes back passes as if nothing had been rounded.

Bengio et al. 2013 (arXiv 1308.3432). Where a value was clipped nothing passes.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


def through(values: Tensor, rounded: Tensor, lowest: Tensor | None = None, highest: Tensor | None = None) -> Tensor:
    """`rounded` going forward; its gradient goes back to `values`, where these lie in [lowest, highest).

    Shapes: `rounded` that of `values`; the bounds of one element each, or one for each value; both or none.
    """
    if not (torch.is_grad_enabled() and values.requires_grad):
        return rounded
    return cast(Tensor, _Through.apply(values, rounded, lowest, highest))


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rounded: Tensor, lowest: Tensor | None, highest: Tensor | None) -> Tensor:
        ctx.ends = None
        if lowest is not None and highest is not None and lowest.numel() == 1 and values.device.type == "cpu":
            below = torch.nextafter(lowest, torch.full_like(lowest, -torch.inf))
            ctx.ends = (float(below), float(highest))
            ctx.save_for_backward(values)
        elif lowest is not None and highest is not None:  # reading the ends would wait for the device
            ctx.save_for_backward((values >= lowest).logical_and_(values < highest))
        ctx.mark_dirty(rounded)  # it is the result itself, no view of it, so that a network may add to it in place
        return rounded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        if not ctx.saved_tensors:
            return gradient, None, None, None
        (saved,) = ctx.saved_tensors
        if ctx.ends is None:
            return gradient * saved, None, None, None
        return torch.ops.aten.hardtanh_backward(gradient, saved, *ctx.ends), None, None, None  # in one pass


def learned_clip(values: Tensor, rounded: Tensor, highest: Tensor) -> Tensor:
    """The same between 0 and a clipping value that is learned: what is clipped there moves it.

    Choi et al. 2018 (PACT, arXiv 1805.06085), section 3. Shapes: `highest` of one element.
    """
    if not torch.is_grad_enabled():
        return rounded
    return cast(Tensor, _LearnedClip.apply(values, rounded, highest))


class _LearnedClip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rounded: Tensor, highest: Tensor) -> Tensor:
        ctx.save_for_backward(values, highest)
        ctx.mark_dirty(rounded)  # it is the result itself, no view of it, so that a network may add to it in place
        return rounded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        values, highest = ctx.saved_tensors
        clipped = (gradient * (values >= highest)).sum().expand(highest.shape)
        if values.device.type == "cpu":
            return torch.ops.aten.hardtanh_backward(gradient, values, 0.0, float(highest)), None, clipped
        return gradient * (values > 0).logical_and_(values < highest), None, clipped
