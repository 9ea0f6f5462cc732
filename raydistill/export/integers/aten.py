"""Whole numbers in torch's own operators: an archive that any torch can load, its weights in 8 bits.

Torch computes it with floats, as the simulation does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from raydistill.compression.quantizers.integers import Step


class AtenOperators:
    def activation(self, values: Tensor, step: Step) -> Tensor:
        # spelt out: the operator for it cannot be traced
        numbers = torch.clamp(torch.round(values * (1.0 / step.scale)) + step.zero_point, step.low, step.high)
        return (numbers - step.zero_point) * step.scale

    def weight(self, numbers: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
        shape = [1] * numbers.dim()
        if axis is not None:
            shape[axis] = -1
        return (numbers.float() - zero_point.float().view(shape)) * scale.view(shape)
