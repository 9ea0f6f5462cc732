"""The step of a grid, learned as a weight is: what training says of rounding itself moves it.

Esser et al. 2020 (LSQ, arXiv 1902.08153). With v = values / step, [low, high] the grid's numbers and w the values' own
gradient, a step's is the sum of w * d, where d is low where v <= low, high where v >= high, and round(v) - v between
(equation 3), times 1 / sqrt(N * high) for N values that share the step (section 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from raydistill.compression.ranks import present

_LEAST = 1e-8
"""Of steps: one that is driven below zero keeps nothing, and comes back by its gradient."""


def first_step(rows: Tensor, high: int) -> Tensor:
    """Where a step begins: 2 * mean|v| / sqrt(high) (section 2.1), over what is not zero, which every grid has.

    Shapes: rows (steps, values); (steps,). A row of nothing but zero has the mean of the others, or 1.
    """
    sizes = rows.detach().float().abs()
    counts = torch.count_nonzero(sizes, 1)
    means = sizes.sum(1) / counts.clamp(min=1)
    known = means[counts > 0]
    return 2 * torch.where(counts > 0, means, known.mean() if len(known) else torch.ones(())) / math.sqrt(high)


class LearnedSteps(nn.Module):
    """So many steps, which begin at what is first seen.

    begun: 1 from then on, 0 before. An average of the parameters and of it over training counts the steps of before as
    nothing, so that the one by the other is the average of the steps.
    """

    begun: Tensor

    def __init__(self, count: int = 1) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.zeros(count))
        self.register_buffer("begun", torch.zeros(1))
        self._known = False

    def _load_from_state_dict(self, state_dict: Mapping[str, object], prefix: str, *rest: object) -> None:
        self._known = False
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @property
    def ready(self) -> bool:
        """Whether they have begun; asked of the device until they have."""
        self._known = self._known or bool(self.begun)
        return self._known

    @torch.no_grad()
    def begin(self, steps: Tensor) -> None:
        """Shape: (steps,)."""
        self.size.copy_(steps)
        self.begun.fill_(1.0)

    @torch.no_grad()
    def now(self) -> Tensor:
        """The steps as numbers above zero, shape (steps,)."""
        return (self.size.detach().float() / self.begun.clamp(min=_LEAST)).clamp(min=_LEAST)


def of_all_ranks(values: Tensor, high: int) -> Tensor:
    """`first_step` of a minibatch whose rows lie on one rank or on several: zeros count too, as many activations are
    zero. Shape: (1,)."""
    own = torch.stack([values.detach().float().abs().sum(), torch.tensor(float(values.numel()), device=values.device)])
    ranks = present()
    if ranks is not None and ranks.several:
        own = ranks.sum(own * (not ranks.idle))  # a row of one that is idle counts for nothing
    mean = own[0] / own[1]
    return 2 * torch.where(mean > 0, mean, torch.ones_like(mean)).reshape(1) / math.sqrt(high)


def learned_step(
    values: Tensor, rounded: Tensor, size: Tensor, step: Tensor, low: int, high: int, factor: float
) -> Tensor:
    """`rounded` going forward; back go the gradients of the values, where they lie inside, and of the steps.

    size: the parameter, shape (steps,). step: its present values, in a shape that broadcasts with `values`. factor: of
    the steps' gradient.
    """
    if not torch.is_grad_enabled():
        return rounded
    return cast(Tensor, _LearnedStep.apply(values, rounded, size, step, low, high, factor))


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, rounded: Tensor, size: Tensor, step: Tensor, low: int, high: int, factor: float
    ) -> Tensor:
        ctx.save_for_backward(values, step)
        ctx.ends, ctx.factor = (low, high), factor
        ctx.mark_dirty(rounded)  # it is the result itself, no view of it, so that a network may add to it in place
        return rounded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor, None, None, None, None]:
        values, step = ctx.saved_tensors
        low, high = ctx.ends
        counted = values / step
        inside = (counted > low).logical_and_(counted < high)
        moves = torch.where(inside, torch.round(counted) - counted, counted.clamp(low, high))
        of_step = (gradient * moves).float().sum_to_size(step.shape).reshape(-1) * ctx.factor
        return gradient * inside, None, of_step, None, None, None, None
