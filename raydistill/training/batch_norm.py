"""Batch norm whose statistics are those of the whole minibatch, wherever its rows are.

With it a network on several ranks learns what it would in one process; each rank's own statistics would make the
minibatch smaller. `torch.nn.SyncBatchNorm` does the same on GPUs only.

Shapes: inputs are (N, C, ...); statistics are (C,), in the input's precision or float32, whichever is finer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression.ranks import Ranks, present


def over_ranks(model: nn.Module) -> None:
    """Change the class of a model's batch norms; parameters, buffers and their names stay what they are."""
    for module in model.modules():
        if type(module) in _OVER_RANKS:
            module.__class__ = _OVER_RANKS[type(module)]


def is_over_ranks(module: nn.Module) -> bool:
    return isinstance(module, _OverRanks)


class _OverRanks(nn.modules.batchnorm._BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        ranks = present()
        if ranks is None or not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # a cumulative average
                momentum = 1.0 / float(self.num_batches_tracked)
        running = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
        return _Normalise.apply(input, self.weight, self.bias, *running, self.eps, momentum, ranks)


class _BatchNorm1d(_OverRanks, nn.BatchNorm1d):
    pass


class _BatchNorm2d(_OverRanks, nn.BatchNorm2d):
    pass


class _BatchNorm3d(_OverRanks, nn.BatchNorm3d):
    pass


_OVER_RANKS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _BatchNorm1d,
    nn.BatchNorm2d: _BatchNorm2d,
    nn.BatchNorm3d: _BatchNorm3d,
}


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        eps: float,
        momentum: float,
        ranks: Ranks,
    ) -> Tensor:
        dims = _all_but_channels(x)
        fine = x if x.dtype == torch.float64 else x.float()
        own_var, own_mean = torch.var_mean(fine, dims, correction=0)
        own_count = 0 if ranks.idle else x.numel() // x.shape[1]
        every = ranks.stack(torch.cat([own_mean, own_var, own_mean.new_tensor([own_count])]))
        means, variances, counts = (*every[:, :-1].tensor_split(2, dim=1), every[:, -1:])
        count = float(counts.sum())
        if count < 2:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
        share = counts / count
        mean = (share * means).sum(0)
        var = (share * (variances + (means - mean).square())).sum(0)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((var * (count / (count - 1))).to(running_var), momentum)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps))
        ctx.count, ctx.ranks, ctx.idle = count, ranks, ranks.idle
        return functional.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, mean, inverse = ctx.saved_tensors
        dims, shape = _all_but_channels(x), [1, -1, *[1] * (x.dim() - 2)]
        fine = gradient.to(mean.dtype)
        normal = (x.to(mean.dtype) - mean.view(shape)) * inverse.view(shape)
        of_bias, of_weight = fine.sum(dims), (fine * normal).sum(dims)
        totals = ctx.ranks.sum(torch.cat([of_bias, of_weight])) / ctx.count
        through_mean, through_var = (part.view(shape) for part in totals.tensor_split(2))
        scale = (inverse if weight is None else inverse * weight).view(shape)
        # what an idle rank normalised was in nobody's statistics
        of_x = fine * scale if ctx.idle else (fine - through_mean - normal * through_var) * scale
        learnt = (of_weight, of_bias) if weight is not None else (None, None)
        return of_x.to(x.dtype), *learnt, None, None, None, None, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]
