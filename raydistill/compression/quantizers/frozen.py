"""A quantized network whose numbers are settled: weights lie on their grids, ranges do not move.

Then a batch norm can go into the layer before it without another rounding (its scale goes into the grid's), and the
weights can be written as whole numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.compression.quantizers.activations import FixedGrid
from raydistill.compression.quantizers.grid import Grid
from raydistill.compression.quantizers.network import Quantization, quantization_of
from raydistill.compression.quantizers.weights import WeightQuantizer


class FrozenWeight(WeightQuantizer):
    """The weight lies on its grid already. low, high: of its numbers; shape: of its scale and zero point.

    numbers: the weight as whole numbers, where it is to be written so; then the float weight is not read.
    """

    NAME = "frozen"
    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: int, low: int, high: int, shape: Sequence[int] = ()) -> None:
        super().__init__(bits)
        self.low, self.high, self.shape = low, high, tuple(shape)
        self.register_buffer("scale", torch.ones(self.shape))
        self.register_buffer("zero_point", torch.zeros(self.shape))

    def described(self) -> dict[str, Any]:
        return {"bits": self.bits, "low": self.low, "high": self.high, "shape": list(self.shape)}

    def grid(self, weight: Tensor) -> Grid:
        return Grid(self.scale, self.zero_point, self.low, self.high)

    def forward(self, weight: Tensor) -> Tensor:
        return weight

    @torch.no_grad()
    def scale_rows(self, factors: Tensor, axis: int) -> bool:
        """The weight's rows, along this dimension, were multiplied by these factors: its grid follows.

        False, and nothing is done, where a row changes its sign and its numbers would not fit any more.
        """
        shape = [1] * max(len(self.shape), 1)
        if len(self.shape) > 1:
            shape = [1] * len(self.shape)
            shape[axis] = len(factors)
        return self._follow(factors, shape, axis)

    def _follow(self, factors: Tensor, shape: list[int], axis: int) -> bool:
        raise NotImplementedError
