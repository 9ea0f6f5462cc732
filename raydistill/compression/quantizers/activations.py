"""How what a call gives is rounded in a forward pass."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raydistill.compression.quantizers.grid import Grid, Mode, grid_of
from raydistill.compression.quantizers.integers import Spoken, Step, of_8_bits
from raydistill.compression.quantizers.through import learned_clip, through


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
        """One that rounds to the present grid for good."""
        return self


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
        self.register_buffer(
            "_decay", torch.tensor(ema_decay), persistent=False
        )  # 1 - it has to be the same everywhere

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
        return grid_of(*self.range(), self.bits, self.mode) if bool(self.steps) else None

    @property
    def ready(self) -> bool:
        return bool(self.steps)

    def frozen(self) -> ActivationQuantizer:
        return FixedGrid.of(self.bits, self.grid() or grid_of(0.0, 1.0, self.bits, self.mode))

    @torch.no_grad()
    def _track(self, values: Tensor) -> None:
        lowest, highest = torch.aminmax(values)
        self.steps += 1
        for average, value in ((self.lowest, lowest), (self.highest, highest)):
            average.mul_(self._decay).add_((1 - self._decay) * value)

    def forward(self, values: Tensor) -> Tensor:
        if self.training and self.tracking and values.numel():
            self._track(values)
        grid = self.grid()
        if grid is None:
            return values
        lowest, highest = self.range()
        rounded = grid.nearest(values if self.mode is not Mode.SYMMETRIC else torch.clamp(values, lowest, highest))
        return through(values, rounded, lowest, highest)


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

    def frozen(self) -> ActivationQuantizer:
        return FixedGrid.of(self.bits, self.grid())

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
        highest = (
            self.clip_val.detach().float().clamp(min=1e-6)
        )  # one that training has driven below zero keeps nothing
        return grid_of(torch.zeros_like(highest), highest, self.bits, Mode.ASYMMETRIC_UNSIGNED)

    def frozen(self) -> ActivationQuantizer:
        return FixedGrid.of(self.bits, self.grid())

    def forward(self, values: Tensor) -> Tensor:
        return learned_clip(values, self.grid().nearest(values), self.clip_val)


class FixedGrid(ActivationQuantizer, Spoken):
    """To a grid that was found beforehand, from statistics of calibration data."""

    NAME = "fixed"
    scale: Tensor
    zero_point: Tensor

    def __init__(self, bits: int, low: int, high: int) -> None:
        super().__init__(bits)
        self.low, self.high = low, high
        self._step: Step | None = None
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1))

    @classmethod
    def of(cls, bits: int, grid: Grid) -> FixedGrid:
        """One of this grid, which is one for all values."""
        made = cls(bits, grid.low, grid.high).to(grid.scale.device)
        made.scale.copy_(grid.scale.reshape(1))
        made.zero_point.copy_(grid.zero_point.reshape(1))
        return made

    def described(self) -> dict[str, Any]:
        return {"bits": self.bits, "low": self.low, "high": self.high}

    def grid(self) -> Grid:
        return Grid(self.scale, self.zero_point, self.low, self.high)

    def prepare(self, model: nn.Module) -> None:
        if of_8_bits(self.low, self.high) is not None:
            self._step = Step(float(self.scale), int(self.zero_point), self.low, self.high)

    def forget(self) -> None:
        self._step = None

    def forward(self, values: Tensor) -> Tensor:
        spoken = self.spoken
        if spoken is not None and self._step is not None:
            return spoken.activation(values, self._step)
        grid = self.grid()
        bounds = [grid.values(torch.full_like(self.zero_point, end)) for end in (self.low, self.high)]
        return through(values, grid.nearest(values), bounds[0], bounds[1])


MENU: dict[str, type[ActivationQuantizer]] = {
    kind.NAME: kind for kind in (TrackedRange, FixedClip, LearnedClip, FixedGrid)
}
"""By the name that stands in a checkpoint."""
