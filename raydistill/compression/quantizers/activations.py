"""How what a call gives is rounded in a forward pass."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raydistill.compression.quantizers.grid import Grid, Mode, as_multiplier_and_shift, grid_of, grid_under, on_grid
from raydistill.compression.quantizers.integers import Spoken, Step, of_8_bits
from raydistill.compression.quantizers.ranges import Clip, value_range
from raydistill.compression.quantizers.steps import LearnedSteps, learned_step, of_all_ranks
from raydistill.compression.quantizers.through import learned_clip, through
from raydistill.compression.ranks import present


class ActivationQuantizer(nn.Module):
    """Rounds what one or more calls of a network give. Call it with the floats; shapes stay. bits: of each number.

    tracking: whether it learns from what it sees while it is training.
    """

    NAME: ClassVar[str] = ""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits, self.tracking = bits, True

    def described(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"bits": self.bits}

    def grid(self) -> Grid | None:
        """The grid that it rounds to, whatever it is given; None where it has seen nothing yet."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether it rounds as it will for good."""
        return True

    def frozen(self) -> ActivationQuantizer:
        """One that rounds to the present grid for good; itself where it has none of its own."""
        grid = self.grid()
        return self if grid is None else FixedGrid.of(self.bits, grid)


class TrackedRange(ActivationQuantizer):
    """Over a moving average of the extremes that were seen in training, its bias taken out.

    Jacob et al. 2018 (arXiv 1712.05877), section 3.1. lowest, highest: the averages as they are accumulated; steps: of
    how many minibatches. Before the first one nothing is rounded.
    """

    NAME = "tracked"
    lowest: Tensor
    highest: Tensor
    steps: Tensor
    _decay: Tensor

    def __init__(self, bits: int, mode: str = Mode.SYMMETRIC.value, ema_decay: float = 0.999) -> None:
        super().__init__(bits)
        self.mode, self.ema_decay = Mode(mode), ema_decay
        for name in ("lowest", "highest", "steps"):
            self.register_buffer(name, torch.zeros(1))
        # a tensor, so that one minus it is the same number wherever it is used
        self.register_buffer("_decay", torch.tensor(ema_decay), persistent=False)

    def described(self) -> dict[str, Any]:
        return {"bits": self.bits, "mode": self.mode.value, "ema_decay": self.ema_decay}

    def range(self) -> tuple[Tensor, Tensor]:
        """The averages so far; zero before the first minibatch."""
        seen = (1 - self._decay**self.steps).clamp(min=1e-12)
        lowest, highest = self.lowest / seen, self.highest / seen
        if self.mode.symmetric:
            largest = torch.maximum(lowest.abs(), highest.abs())
            return -largest, largest
        return lowest, highest

    def grid(self) -> Grid | None:
        return grid_of(*self.range(), self.bits, self.mode) if self.ready else None

    @property
    def ready(self) -> bool:
        return bool(self.steps)

    def frozen(self) -> ActivationQuantizer:
        return FixedGrid.of(self.bits, self.grid() or grid_of(0.0, 1.0, self.bits, self.mode))

    @torch.no_grad()
    def _track(self, values: Tensor) -> None:
        lowest, highest = _extremes(values)
        self.steps += 1
        for average, value in ((self.lowest, lowest), (self.highest, highest)):
            average.mul_(self._decay).add_((1 - self._decay) * value)

    def forward(self, values: Tensor) -> Tensor:
        if self.training and self.tracking and values.numel():
            self._track(values)
        if not self.ready:
            return values
        lowest, highest = self.range()
        grid = grid_of(lowest, highest, self.bits, self.mode)
        rounded = grid.nearest(values if self.mode is not Mode.SYMMETRIC else torch.clamp(values, lowest, highest))
        return through(values, rounded, lowest, highest)


def _extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value, on whatever ranks the rows of the minibatch are."""
    lowest, highest = torch.aminmax(values)
    ranks = present()
    if ranks is None or not ranks.several:
        return lowest, highest
    own = torch.stack([lowest, highest]).float()
    if ranks.idle:  # its row counts for nothing
        own = torch.tensor([torch.inf, -torch.inf], device=own.device)
    of_all = ranks.stack(own)
    return of_all[:, 0].min(), of_all[:, 1].max()


class FixedClip(ActivationQuantizer):
    """Over [0, highest], which stays as it is: what is larger is clipped. DoReFa and WRPN clip at 1."""

    NAME = "clipped"

    def __init__(self, bits: int, highest: float = 1.0) -> None:
        super().__init__(bits)
        self.highest = highest

    def described(self) -> dict[str, Any]:
        return {"bits": self.bits, "highest": self.highest}

    def grid(self) -> Grid:
        return grid_of(0.0, self.highest, self.bits, Mode.ASYMMETRIC_UNSIGNED)

    def forward(self, values: Tensor) -> Tensor:
        grid = self.grid()
        grid = Grid(grid.scale.to(values.device), grid.zero_point.to(values.device), grid.low, grid.high)
        zero = torch.zeros((), device=values.device)
        return through(values, grid.nearest(values), zero, zero + self.highest)


class LearnedClip(ActivationQuantizer):
    """Over [0, clip_val], where the clipping value is learned. Choi et al. 2018 (PACT, arXiv 1805.06085), section 3."""

    NAME = "learned_clip"

    def __init__(self, bits: int, initial: float = 8.0) -> None:
        super().__init__(bits)
        self.initial = initial
        self.clip_val = nn.Parameter(torch.full((1,), float(initial)))

    def described(self) -> dict[str, Any]:
        return {"bits": self.bits, "initial": self.initial}

    @torch.no_grad()
    def grid(self) -> Grid:
        highest = self.clip_val.detach().float().clamp(min=1e-6)  # driven below zero it keeps nothing
        return grid_of(torch.zeros_like(highest), highest, self.bits, Mode.ASYMMETRIC_UNSIGNED)

    def forward(self, values: Tensor) -> Tensor:
        return learned_clip(values, self.grid().nearest(values), self.clip_val)


class LearnedStep(ActivationQuantizer):
    """To numbers times a step that is learned (`steps`); before the first minibatch nothing is rounded.

    signed: the numbers go below zero. The values that share the step are those of one sample, however large a batch.
    """

    NAME = "learned_step"

    def __init__(self, bits: int, signed: bool = True) -> None:
        super().__init__(bits)
        self.signed = signed
        self.low, self.high = (Mode.SYMMETRIC if signed else Mode.ASYMMETRIC_UNSIGNED).numbers(bits)
        self.steps = LearnedSteps()

    def described(self) -> dict[str, Any]:
        return {"bits": self.bits, "signed": self.signed}

    @property
    def ready(self) -> bool:
        return self.steps.ready

    def grid(self) -> Grid | None:
        if not self.ready:
            return None
        scale = self.steps.now()
        return Grid(scale, torch.zeros_like(scale), self.low, self.high)

    def frozen(self) -> ActivationQuantizer:
        one = torch.ones_like(self.steps.begun)
        return FixedGrid.of(self.bits, self.grid() or Grid(one, torch.zeros_like(one), self.low, self.high))

    def forward(self, values: Tensor) -> Tensor:
        if self.training and self.tracking and values.numel() and not self.ready:
            self.steps.begin(of_all_ranks(values, self.high))
        grid = self.grid()
        if grid is None or not values.numel():
            return values
        factor = 1 / math.sqrt(values[:1].numel() * self.high)
        return learned_step(values, grid.nearest(values), self.steps.size, grid.scale, self.low, self.high, factor)


class FixedGrid(ActivationQuantizer, Spoken):
    """To a grid that was found beforehand, from statistics of calibration data.

    multiplier_bits: the factor from the sums of an accumulator to these numbers is a whole multiplier of so many bits
    and a shift, rounded down, as integer hardware has it; None: it is a float.
    """

    NAME = "fixed"
    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: int, low: int, high: int, multiplier_bits: int | None = None) -> None:
        super().__init__(bits)
        self.low, self.high, self.multiplier_bits = low, high, multiplier_bits
        self._step: Step | None = None
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1))

    @classmethod
    def of(cls, bits: int, grid: Grid) -> FixedGrid:
        """One of this grid, which is one for all values."""
        made = cls(bits, grid.low, grid.high).to(grid.scale.device)
        made.take(grid)
        return made

    def described(self) -> dict[str, Any]:
        return {"bits": self.bits, "low": self.low, "high": self.high, "multiplier_bits": self.multiplier_bits}

    @torch.no_grad()
    def take(self, grid: Grid) -> None:
        """Round to this grid from now on, of one element."""
        self.low, self.high = grid.low, grid.high
        self.scale.copy_(grid.scale.reshape(-1))
        self.zero_point.copy_(grid.zero_point.reshape(-1))

    def grid(self) -> Grid:
        return Grid(self.scale, self.zero_point, self.low, self.high)

    def frozen(self) -> ActivationQuantizer:
        return self

    def prepare(self, model: nn.Module) -> None:
        if of_8_bits(self.low, self.high) is not None:
            self._step = Step(float(self.scale), int(self.zero_point), self.low, self.high)

    def forget(self) -> None:
        self._step = None

    def forward(self, values: Tensor) -> Tensor:
        spoken = self.spoken
        if spoken is not None and self._step is not None:
            return spoken.activation(values, self._step)
        return _rounded(values, self.grid(), self.multiplier_bits)


class DynamicRange(ActivationQuantizer, Spoken):
    """Over the range of what it is given, found anew each time: quantization without calibration.

    clip, num_stds, percentile, half_range: of `ranges.value_range`. multiplier_bits: as `FixedGrid`'s.
    """

    NAME = "dynamic"

    def __init__(
        self,
        bits: int,
        mode: str = Mode.SYMMETRIC.value,
        clip: str = Clip.NONE.value,
        num_stds: float = 2.0,
        percentile: float = 99.99,
        half_range: bool = False,
        multiplier_bits: int | None = None,
    ) -> None:
        super().__init__(bits)
        self.mode, self.clip, self.num_stds, self.percentile = Mode(mode), Clip(clip), num_stds, percentile
        self.half_range, self.multiplier_bits = half_range, multiplier_bits

    def described(self) -> dict[str, Any]:
        return {
            "bits": self.bits, "mode": self.mode.value, "clip": self.clip.value, "num_stds": self.num_stds,
            "percentile": self.percentile, "half_range": self.half_range, "multiplier_bits": self.multiplier_bits,
        }  # fmt: skip

    def grid(self) -> Grid | None:
        """It has none of its own."""
        return None

    @torch.no_grad()
    def grid_for(self, values: Tensor) -> Grid:
        """The grid that these values are rounded to."""
        lowest, highest = value_range(
            values.detach().float(), self.mode, self.bits, self.clip, self.num_stds, self.half_range,
            percentile=self.percentile,
        )  # fmt: skip
        return approximated(grid_of(lowest, highest, self.bits, self.mode), self.multiplier_bits)

    def forward(self, values: Tensor) -> Tensor:
        if self.spoken is not None:
            raise ValueError(
                "ranges that are found anew for each batch cannot be written: calibrate, and quantize by that"
            )
        return _rounded(values, self.grid_for(values), self.multiplier_bits) if values.numel() else values


class Accumulator(ActivationQuantizer):
    """The sums of a layer's products, as whole numbers of `bits` bits, signed, before they are rounded to a result.

    Their unit is the product of the units of the two factors; the bias is rounded to it. Where a factor is a float,
    nothing is done. multiplier_bits: that product, too, is approximated as `FixedGrid` says.
    """

    NAME = "accumulator"

    def __init__(self, bits: int = 32, multiplier_bits: int | None = None) -> None:
        super().__init__(bits)
        self.multiplier_bits = multiplier_bits

    def described(self) -> dict[str, Any]:
        return {"bits": self.bits, "multiplier_bits": self.multiplier_bits}

    def grid(self) -> Grid | None:
        """It depends on what is multiplied."""
        return None

    @torch.no_grad()
    def unit(self, inputs: Grid, weight: Grid) -> Tensor:
        """Of one, or one a channel of the weight, shape (channels,)."""
        return (inputs.scale.reshape(-1) * weight.scale.reshape(-1)).reshape(-1)

    def approximate(self, unit: Tensor) -> Tensor:
        """The unit as integer hardware has it."""
        if self.multiplier_bits is None:
            return unit
        multiplier, shift = as_multiplier_and_shift(1 / unit, self.multiplier_bits)
        return 2.0**shift / multiplier

    def bias(self, bias: Tensor, unit: Tensor) -> Tensor:
        """The bias as it is added to sums of that unit. Shape: (channels,)."""
        unit = _repeated(unit, len(bias))
        low, high = Mode.SYMMETRIC.numbers(self.bits)
        numbers = torch.round(bias.detach() / self.approximate(unit)).clamp(low, high)
        return through(bias, (numbers * unit).to(bias.dtype))

    def sums(self, values: Tensor, unit: Tensor, axis: int) -> Tensor:
        """What a layer gives, as its accumulator has it. axis: of the channels, counted from the end."""
        low, high = Mode.SYMMETRIC.numbers(self.bits)
        shape = [1] * (-axis)
        shape[0] = -1
        unit = unit if unit.numel() == 1 else _repeated(unit, values.shape[axis]).view(shape)
        approximate = self.approximate(unit)
        result = values
        if self.bits < 32 or self.multiplier_bits is not None:
            numbers = torch.round(values.detach() / unit).clamp(low, high)
            result = through(values, numbers * approximate, low * unit, high * unit)
        result = result.view_as(result) if result is values else result
        return on_grid(result, Grid(approximate, torch.zeros_like(approximate), low, high))


class ReducedFloat(ActivationQuantizer):
    """To a float of fewer bits: 16 (half precision); 32 leaves it, and 64 cannot be told from 32 in what follows."""

    NAME = "float"

    def grid(self) -> Grid | None:
        """It lies on none."""
        return None

    def forward(self, values: Tensor) -> Tensor:
        return through(values, values.detach().half().to(values.dtype)) if self.bits == 16 else values


def approximated(grid: Grid, multiplier_bits: int | None) -> Grid:
    """The grid whose numbers a value is brought to by a whole multiplier of so many bits and a shift."""
    if multiplier_bits is None:
        return grid
    multiplier, shift = as_multiplier_and_shift(1 / grid.scale, multiplier_bits)
    return Grid(2.0**shift / multiplier, grid.zero_point, grid.low, grid.high)


def _rounded(values: Tensor, grid: Grid, multiplier_bits: int | None) -> Tensor:
    sums = grid_under(values)
    if multiplier_bits is None or sums is None:
        return on_grid(through(values, grid.nearest(values), *grid.ends), grid)
    multiplier, shift = as_multiplier_and_shift(sums.scale / grid.scale, multiplier_bits)
    scaled = torch.round(values.detach() / sums.scale) * (multiplier / 2.0**shift)
    numbers = torch.clamp(torch.round(scaled) + grid.zero_point, grid.low, grid.high)
    return on_grid(through(values, grid.values(numbers), *grid.ends), grid)


def _repeated(unit: Tensor, channels: int) -> Tensor:
    """One a channel: a transposed convolution of several groups has its channels' units once."""
    return unit if unit.numel() in (1, channels) else unit.repeat(channels // unit.numel())


MENU: dict[str, type[ActivationQuantizer]] = {
    kind.NAME: kind
    for kind in (TrackedRange, FixedClip, LearnedClip, LearnedStep, FixedGrid, DynamicRange, Accumulator, ReducedFloat)
}
"""By the name that stands in a checkpoint."""
