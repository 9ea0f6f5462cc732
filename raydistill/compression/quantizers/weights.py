"""How a weight is rounded in a forward pass. The parameter itself stays a float, trained and kept under its own name.

Zero stays zero through all of them, so what is pruned is pruned in the quantized network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raydistill.compression.quantizers.grid import Grid, Mode, grid_of, of_groups, on_grid
from raydistill.compression.quantizers.ranges import value_range
from raydistill.compression.quantizers.steps import LearnedSteps, first_step, learned_step
from raydistill.compression.quantizers.through import through


class WeightQuantizer(nn.Module):
    """Rounds one weight of a network. Call it with the float weight; shapes stay. bits: of each number."""

    NAME: ClassVar[str] = ""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def described(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"bits": self.bits}

    def grid(self, weight: Tensor) -> Grid | None:
        """The grid that the rounded weight lies on; None where it lies on none."""
        raise NotImplementedError

    def kept_grid(self, weight: Tensor) -> Grid | None:
        """The same, but of a weight in groups of columns with one scale a group."""
        return self.grid(weight)

    def of_channels(self) -> tuple[int, Mapping[str, Tensor]]:
        """What it holds for each channel, by its name here, shape (channels,), and the channels' dimension."""
        return 0, {}


class LinearWeight(WeightQuantizer):
    """Over the range that the weight has at that moment, of all of it or of each channel.

    axis: the dimension of the channels where each has a grid of its own; None: one for all. group: of a weight with its
    rows in dimension 0, so many columns (dimension 1, with their taps) of a row have a grid of their own; None: all of
    it. Where they do not divide into groups of this size, these are as many, as even as they can be.
    """

    NAME = "linear"

    def __init__(
        self, bits: int, mode: str = Mode.SYMMETRIC.value, axis: int | None = None, group: int | None = None
    ) -> None:
        super().__init__(bits)
        self.mode, self.axis, self.group = Mode(mode), axis, group

    def described(self) -> dict[str, Any]:
        said = {"bits": self.bits, "mode": self.mode.value, "axis": self.axis}
        return said if self.group is None else {**said, "group": self.group}

    @torch.no_grad()
    def grid(self, weight: Tensor) -> Grid:
        kept = self.kept_grid(weight)
        columns = weight.shape[1] if weight.dim() > 1 else 1
        scale, zero_point = (of_groups(held, columns) for held in (kept.scale, kept.zero_point))
        return Grid(scale, zero_point, kept.low, kept.high)

    @torch.no_grad()
    def kept_grid(self, weight: Tensor) -> Grid:
        weight = weight.detach().float()
        if self.group is not None and weight.dim() > 1:
            columns = weight.shape[1]
            count = -(-columns // self.group)
            size = -(-columns // count)
            ends = [(part.flatten(1).amin(1), part.flatten(1).amax(1)) for part in weight.split(size, 1)]
            lowest, highest = (
                torch.stack(each, 1).view(-1, len(ends), *[1] * (weight.dim() - 2)) for each in zip(*ends, strict=True)
            )
            return grid_of(lowest, highest, self.bits, self.mode)
        if self.axis is None:
            return grid_of(*value_range(weight, self.mode, self.bits), self.bits, self.mode)
        rows = weight.movedim(self.axis, 0)
        shape = [1] * weight.dim()
        shape[self.axis] = -1
        lowest, highest = value_range(rows, self.mode, self.bits, per_channel=True)
        return grid_of(lowest.view(shape), highest.view(shape), self.bits, self.mode)

    def forward(self, weight: Tensor) -> Tensor:
        grid = self.grid(weight)
        return on_grid(through(weight, grid.nearest(weight)), grid)


class WrpnWeight(WeightQuantizer):
    """Clipped to [-1, 1] and rounded there. Mishra et al. 2017 (WRPN, arXiv 1709.01134), section 4.

    On Distiller's grid: 2^bits - 1 half steps to 1, where the paper has 2^(bits - 1) - 1 whole ones.
    """

    NAME = "wrpn"

    def grid(self, weight: Tensor) -> Grid:
        one = torch.ones((), device=weight.device)
        return grid_of(-one, one, self.bits, Mode.SYMMETRIC)

    def forward(self, weight: Tensor) -> Tensor:
        clipped = weight.clamp(-1.0, 1.0)
        return through(clipped, self.grid(weight).nearest(clipped))


class DorefaWeight(WeightQuantizer):
    """tanh of the weights, scaled to [-1, 1], on 2^bits levels that lie evenly around zero, which is none of them.

    Zhou et al. 2016 (DoReFa-Net, arXiv 1606.06160), section 2.3; one bit is the sign, times the mean absolute value
    (2.2). A weight that is exactly zero, as the pruned ones are, stays zero. The grid counts in half levels, so that
    zero is one of its numbers.
    """

    NAME = "dorefa"

    @property
    def levels(self) -> int:
        return 2**self.bits - 1

    @torch.no_grad()
    def grid(self, weight: Tensor) -> Grid:
        step = 1.0 / self.levels
        scale = weight.detach().abs().mean() if self.bits == 1 else torch.full((), step, device=weight.device)
        return Grid(scale, torch.zeros_like(scale), -self.levels, self.levels)

    def forward(self, weight: Tensor) -> Tensor:
        if self.bits == 1:
            return through(weight, weight.detach().sign() * self.grid(weight).scale)
        squeezed = weight.tanh()
        unit = squeezed / (2 * squeezed.abs().max().clamp(min=1e-12)) + 0.5
        rounded = through(unit, torch.round(unit.detach() * self.levels) / self.levels)
        return torch.where(weight == 0, torch.zeros_like(weight), 2 * rounded - 1)


class LearnedStepWeight(WeightQuantizer):
    """To signed numbers, times a step that is learned (`steps`), of all of it or of each channel.

    axis: the dimension of the channels where each has a step of its own; None: one for all. channels: how many.
    """

    NAME = "learned_step"

    def __init__(self, bits: int, axis: int | None = None, channels: int = 1) -> None:
        super().__init__(bits)
        self.axis = axis
        self.low, self.high = Mode.SYMMETRIC.numbers(bits)
        self.steps = LearnedSteps(channels)

    def described(self) -> dict[str, Any]:
        return {"bits": self.bits, "axis": self.axis, "channels": len(self.steps.size)}

    def kept_grid(self, weight: Tensor) -> Grid | None:
        """The same, but of a weight in groups of columns with one scale a group."""
        return self.grid(weight)

    def of_channels(self) -> tuple[int, Mapping[str, Tensor]]:
        return (0, {}) if self.axis is None else (self.axis, {"steps.size": self.steps.size})

    @torch.no_grad()
    def grid(self, weight: Tensor) -> Grid:
        steps = self.steps.now() if self.steps.ready else self._first(weight)
        shape = [1] * weight.dim()
        if self.axis is not None:
            shape[self.axis] = -1
        scale = steps.view(shape)
        return Grid(scale, torch.zeros_like(scale), self.low, self.high)

    def _first(self, weight: Tensor) -> Tensor:
        rows = weight.detach().reshape(1, -1) if self.axis is None else weight.detach().movedim(self.axis, 0).flatten(1)
        return first_step(rows, self.high)

    def forward(self, weight: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and not self.steps.ready:
            self.steps.begin(self._first(weight))
        grid = self.grid(weight)
        factor = 1 / math.sqrt(max(weight.numel() // len(self.steps.size), 1) * self.high)
        rounded = learned_step(weight, grid.nearest(weight), self.steps.size, grid.scale, self.low, self.high, factor)
        return on_grid(rounded, grid)


class FixedWeight(WeightQuantizer):
    """To a grid that was found beforehand. shape: of its scale, which broadcasts with the weight's."""

    NAME = "fixed"
    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: int, low: int, high: int, shape: Sequence[int] = (1,)) -> None:
        super().__init__(bits)
        self.low, self.high, self.shape = low, high, [int(size) for size in shape]
        self.register_buffer("scale", torch.ones(self.shape))
        self.register_buffer("zero_point", torch.zeros(self.shape))

    def described(self) -> dict[str, Any]:
        return {"bits": self.bits, "low": self.low, "high": self.high, "shape": self.shape}

    @torch.no_grad()
    def take(self, grid: Grid) -> None:
        """Round to this grid from now on; its scale has the shape that was said, or as many elements."""
        self.low, self.high = grid.low, grid.high
        self.scale.copy_(grid.scale.reshape(self.shape))
        self.zero_point.copy_(grid.zero_point.reshape(self.shape))

    def grid(self, weight: Tensor) -> Grid:
        if len(self.shape) < 2:
            return self.kept_grid(weight)
        scale, zero_point = (of_groups(held, weight.shape[1]) for held in (self.scale, self.zero_point))
        return Grid(scale, zero_point, self.low, self.high)

    def kept_grid(self, weight: Tensor) -> Grid:
        return Grid(self.scale, self.zero_point, self.low, self.high)

    def forward(self, weight: Tensor) -> Tensor:
        grid = self.grid(weight)
        return on_grid(through(weight, grid.nearest(weight), *grid.ends), grid)


class LearnedRounding(FixedWeight):
    """To a fixed grid, each weight to a number that was found for it (`adaptive_rounding`, `gptq`).

    weight_shape: of the weight.
    """

    NAME = "learned_rounding"
    up: Tensor

    def __init__(
        self, bits: int, low: int, high: int, shape: Sequence[int] = (1,), weight_shape: Sequence[int] = (1,)
    ) -> None:
        super().__init__(bits, low, high, shape)
        self.weight_shape = [int(size) for size in weight_shape]
        self.register_buffer("up", torch.zeros(self.weight_shape, dtype=torch.int16))

    def described(self) -> dict[str, Any]:
        return {**super().described(), "weight_shape": self.weight_shape}

    @torch.no_grad()
    def take(self, grid: Grid, up: Tensor | None = None) -> None:
        """As `FixedWeight`; up: how far above the number below it each weight goes, of the weight's shape; None: as it
        went."""
        super().take(grid)
        if up is not None:
            self.up.copy_(up)

    def numbers(self, weight: Tensor) -> Tensor:
        """The whole numbers that the weight is rounded to."""
        grid = self.grid(weight)
        return (torch.floor(weight.detach() / grid.scale) + self.up + grid.zero_point).clamp(self.low, self.high)

    def forward(self, weight: Tensor) -> Tensor:
        grid = self.grid(weight)
        rounded = grid.values(self.numbers(weight)).to(weight.dtype)
        return on_grid(through(weight, rounded, *grid.ends), grid)


class ReducedFloatWeight(WeightQuantizer):
    """To a float of 16 bits; of 32 or 64 it stays as it is. It lies on no grid."""

    NAME = "float"

    def grid(self, weight: Tensor) -> Grid | None:
        """It lies on none."""
        return None

    def forward(self, weight: Tensor) -> Tensor:
        return through(weight, weight.detach().half().to(weight.dtype)) if self.bits == 16 else weight


MENU: dict[str, type[WeightQuantizer]] = {
    kind.NAME: kind
    for kind in (
        LinearWeight,
        WrpnWeight,
        DorefaWeight,
        LearnedStepWeight,
        FixedWeight,
        LearnedRounding,
        ReducedFloatWeight,
    )
}
"""By the name that stands in a checkpoint."""
