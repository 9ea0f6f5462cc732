"""A quantized network whose numbers are settled: weights lie on their grids, ranges do not move.

Then a batch norm can go into the layer before it without another rounding (its scale goes into the grid's), and the
weights can be written as whole numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from raydistill.compression.quantizers.activations import ActivationQuantizer
from raydistill.compression.quantizers.grid import on_grid
from raydistill.compression.quantizers.integers import Spoken, of_8_bits
from raydistill.compression.quantizers.network import quantization_of
from raydistill.compression.quantizers.weights import FixedWeight, ReducedFloatWeight, WeightQuantizer

_TOLD = ("_numbers", "_scales", "_zero_points")


class FrozenWeight(FixedWeight, Spoken):
    """The weight lies on its grid already. low, high: of its numbers; shape: of its scale and zero point."""

    NAME = "frozen"
    _whole: torch.Size | None = None
    """While it is told in groups: the weight's own shape."""

    def prepare(self, model: nn.Module) -> None:
        kind = of_8_bits(self.low, self.high)
        weight = self._own(model)
        if weight is None or kind is None:
            return
        numbers = self.numbers(weight).to(kind)
        if self.scale.dim() > 1 and 1 < self.scale.shape[1] < weight.shape[1]:
            numbers, self._whole = of_equal_groups(numbers, self.scale.shape[1]), numbers.shape
        told = (numbers, self.scale.reshape(-1), self.zero_point.reshape(-1).to(kind))
        for attribute, tensor in zip(_TOLD, told, strict=True):
            self.register_buffer(attribute, tensor.contiguous(), persistent=False)

    def _own(self, model: nn.Module) -> nn.Parameter | None:
        """The parameter that this is of: the quantized network may be a part of the one that is written."""
        for network in model.modules():
            held = quantization_of(network)
            for name in held.weight_names() if held is not None else ():
                if held is not None and held.weight(name) is self:
                    return network.get_parameter(name)
        return None

    def forget(self) -> None:
        self._whole = None
        for attribute in _TOLD:
            self._buffers.pop(attribute, None)

    def forward(self, weight: Tensor) -> Tensor:
        spoken = self.spoken
        if spoken is None or _TOLD[0] not in self._buffers:
            return on_grid(weight.view_as(weight), self.grid(weight))
        axis = next((axis for axis, size in enumerate(self.shape) if size > 1), None)
        numbers, scale, zero_point = (getattr(self, attribute) for attribute in _TOLD)
        if self._whole is not None:
            rows, columns, *taps = self._whole
            return spoken.weight(numbers, scale, zero_point, 0).reshape(rows, -1, *taps)[:, :columns]
        return spoken.weight(numbers, scale, zero_point, axis)

    @torch.no_grad()
    def numbers(self, weight: Tensor) -> Tensor:
        """The weight as whole numbers, int32."""
        return self.grid(weight).numbers(weight.detach().float()).to(torch.int32)

    @torch.no_grad()
    def scale_rows(self, weight: Tensor, factors: Tensor, axis: int) -> None:
        """The grid of a weight whose rows, along this dimension, are about to be multiplied by these factors.

        Where a factor is negative the row's numbers change their sign; if they would not fit so, as the lowest of an
        even count of numbers does not, they are mirrored, and zero is another number.
        """
        shape = [1] * weight.dim()
        shape[axis] = -1
        factor = factors.detach().float().view(shape)
        numbers = self.numbers(weight).movedim(axis, 0).flatten(1)
        fits = ((-numbers >= self.low) & (-numbers <= self.high)).all(1).view(shape)
        flat = [1] * weight.dim()
        scale, zero_point = (held if held.dim() else held.view(flat) for held in (self.scale, self.zero_point))
        mirrored = torch.where(fits & (zero_point == 0), -zero_point, self.low + self.high - zero_point)
        self.scale = torch.where(factor == 0, torch.ones_like(factor), scale * factor.abs())
        self.zero_point = torch.where(factor < 0, mirrored, zero_point.expand_as(self.scale)).contiguous()
        self.shape = list(self.scale.shape)


def of_equal_groups(numbers: Tensor, groups: int) -> Tensor:
    """A weight's numbers with each group of its columns (dimension 1) as a row: an operator knows one scale a row.

    The last group may be smaller; zeros fill it. Shape: (rows * groups, columns of a group * taps).
    """
    rows, columns, *taps = numbers.shape
    lacking = -(-columns // groups) * groups - columns
    filled = torch.cat([numbers, numbers.new_zeros(rows, lacking, *taps)], 1)
    return filled.reshape(rows * groups, -1)


def freeze(model: nn.Module) -> bool:
    """Settle a quantized network, in place: in eval mode it gives what it gave. False, and nothing is done, of a float
    one, one that does not round yet, or one with a range that has seen nothing.
    """
    held = quantization_of(model)
    if held is None or not held.enabled or not all(quantizer.ready for quantizer in held.each_activation()):
        return False
    settle(model)
    return True


@torch.no_grad()
def settle(model: nn.Module) -> None:
    """The same of a network whose values do not count yet: they are loaded afterwards."""
    held = quantization_of(model)
    assert held is not None
    for name in held.weight_names():
        parameter, quantizer = model.get_parameter(name), held.weight(name)
        assert isinstance(quantizer, WeightQuantizer)
        if isinstance(quantizer, ReducedFloatWeight):  # which lies on no grid
            parameter.data.copy_(quantizer(parameter))
            continue
        grid = quantizer.kept_grid(parameter)
        if grid is None:
            continue
        frozen = FrozenWeight(quantizer.bits, grid.low, grid.high, grid.scale.shape)
        frozen.take(grid)
        parameter.data.copy_(quantizer(parameter))
        held.replace_weight(name, frozen.to(parameter.device))
    for index, of_input in enumerate(held.inputs):
        assert isinstance(of_input, ActivationQuantizer)
        held.inputs[index] = of_input.frozen()
    for point in held.points:
        held.replace_activation(point, held.activation(point).frozen())
    held.train(held.training)


@contextlib.contextmanager
def floats_put_away(model: nn.Module) -> Iterator[None]:
    """While it lasts the float weights that are told as whole numbers hold nothing, so that nobody writes them too."""
    held = quantization_of(model)
    names = [name for name in held.weight_names() if _is_told(held.weight(name))] if held is not None else []
    kept = {name: model.get_parameter(name).data for name in names}
    try:
        for name, data in kept.items():
            model.get_parameter(name).data = data.new_zeros(1)
        yield
    finally:
        for name, data in kept.items():
            model.get_parameter(name).data = data


def _is_told(quantizer: nn.Module) -> bool:
    return isinstance(quantizer, FrozenWeight) and quantizer.spoken is not None and _TOLD[0] in quantizer._buffers


def frozen_weight(model: nn.Module, name: str) -> FrozenWeight | None:
    """What holds the grid of this parameter in a network that is settled; None where it is not rounded."""
    held = quantization_of(model)
    if held is None or name not in held.weight_names():
        return None
    found = held.weight(name)
    return found if isinstance(found, FrozenWeight) else None
