"""Whole numbers in the operators that torch.compile's CPU backend makes integer kernels of (PyTorch 2 Export's)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from raydistill.compression.quantizers.integers import Step, of_8_bits

OPERATORS = "torch.ops.quantized_decomposed."
"""What their names begin with."""


class Pt2eOperators:
    """``quantized_decomposed``, which torchao registers."""

    def __init__(self) -> None:
        import torchao.quantization.pt2e.quantize_pt2e  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401

        self._ops: Any = torch.ops.quantized_decomposed

    def activation(self, values: Tensor, step: Step) -> Tensor:
        kind = of_8_bits(step.low, step.high)
        grid = (step.scale, step.zero_point, step.low, step.high, kind)
        found: Tensor = self._ops.dequantize_per_tensor(self._ops.quantize_per_tensor(values, *grid), *grid)
        return found

    def weight(self, numbers: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
        limits = torch.iinfo(numbers.dtype)
        if axis is None:
            axis, rows = 0, numbers.shape[0]
            scale, zero_point = scale.expand(rows), zero_point.expand(rows)
        found: Tensor = self._ops.dequantize_per_channel(
            numbers, scale, zero_point.to(torch.int64), axis, limits.min, limits.max, numbers.dtype
        )
        return found
