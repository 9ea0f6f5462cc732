"""A grid of whole numbers that stands for floats: value = (number - zero_point) * scale, number in [low, high].

Jacob et al. 2018 (arXiv 1712.05877), section 2.1. Distiller's scale is one over this one, its zero point the negative.
The four modes, with b bits:

- SYMMETRIC: [-2^(b-1), 2^(b-1) - 1], zero point 0; the largest absolute value lies half a step beyond the end.
- SYMMETRIC_RESTRICTED: [-(2^(b-1) - 1), 2^(b-1) - 1], zero point 0 (Krishnamoorthi 2018, arXiv 1806.08342, 2.2).
- ASYMMETRIC_UNSIGNED: [0, 2^b - 1]. ASYMMETRIC_SIGNED: [-2^(b-1), 2^(b-1) - 1]. Zero is one of the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

_SMALLEST = torch.finfo(torch.float32).tiny
"""Of scales: one over what is smaller is infinite."""
FLOAT_BITS = 32
"""So many bits are a float's: nothing is rounded to them."""


class Mode(str, Enum):
    """How a range of floats is laid on whole numbers."""

    SYMMETRIC = "SYMMETRIC"
    SYMMETRIC_RESTRICTED = "SYMMETRIC_RESTRICTED"
    ASYMMETRIC_UNSIGNED = "ASYMMETRIC_UNSIGNED"
    ASYMMETRIC_SIGNED = "ASYMMETRIC_SIGNED"

    @property
    def symmetric(self) -> bool:
        return self in (Mode.SYMMETRIC, Mode.SYMMETRIC_RESTRICTED)

    def numbers(self, bits: int) -> tuple[int, int]:
        """The lowest and the highest number."""
        if self is Mode.ASYMMETRIC_UNSIGNED:
            return 0, 2**bits - 1
        high = 2 ** (bits - 1) - 1
        return (-high if self is Mode.SYMMETRIC_RESTRICTED else -high - 1), high


@dataclass(frozen=True)
class Grid:
    """scale: positive, float32; zero_point: whole numbers as float32; both of one element, or one a channel in a shape
    that broadcasts with what is quantized."""

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int

    def numbers(self, values: Tensor) -> Tensor:
        """The whole numbers nearest to these values, halves to even, as floats. Shape: that of `values`."""
        return torch.clamp(torch.round(values / self.scale) + self.zero_point, self.low, self.high)

    def values(self, numbers: Tensor) -> Tensor:
        """What these numbers stand for."""
        return (numbers - self.zero_point) * self.scale

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """What the lowest and the highest number stand for."""
        low, high = (self.values(torch.full_like(self.zero_point, end)) for end in (self.low, self.high))
        return low, high

    def nearest(self, values: Tensor) -> Tensor:
        """The values rounded to the grid, as floats: what a network of integers would compute with."""
        if self.scale.numel() == 1 and values.device.type == "cpu":
            # four passes over memory, each as wide as the processor; torch's fused kernel is not, there
            step, zero = float(self.scale), float(self.zero_point)
            steps = values.detach().float() * (1.0 / step)
            found = steps.round_().clamp_(self.low - zero, self.high - zero).mul_(step)
            return found.to(values.dtype)
        if self.scale.numel() == 1 and values.dtype == torch.float32 and self._fits:
            zero_point = self.zero_point.to(torch.int32).reshape(-1)
            rounded: Tensor = torch.fake_quantize_per_tensor_affine(
                values.detach(), self.scale.reshape(-1), zero_point, self.low, self.high
            )
            return rounded
        return self.values(self.numbers(values.detach().float())).to(values.dtype)

    @property
    def _fits(self) -> bool:
        """Whether torch's fused kernel can count so far: floats are whole numbers up to 2^24 only."""
        return self.low >= -(2**23) and self.high <= 2**24


def grid_of(lowest: Tensor | float, highest: Tensor | float, bits: int, mode: Mode) -> Grid:
    """The grid that a range of floats gives. lowest, highest: of one element each, or one a channel.

    Zero is taken into the range. A range of nothing but zero has scale 1.

    Raises:
        ValueError: lowest is above highest.
    """
    lowest, highest = torch.as_tensor(lowest, dtype=torch.float32), torch.as_tensor(highest, dtype=torch.float32)
    if bool((lowest > highest).any()):
        raise ValueError(f"lowest {lowest.tolist()} is above highest {highest.tolist()}")
    low, high = mode.numbers(bits)
    if mode.symmetric:
        largest = torch.maximum(lowest.abs(), highest.abs())
        half_steps = float(high) if mode is Mode.SYMMETRIC_RESTRICTED else (2**bits - 1) / 2
        largest = torch.where(largest == 0, torch.full_like(largest, max(half_steps, 0.5)), largest)
        scale = (largest / max(half_steps, 0.5)).clamp(min=_SMALLEST)
        return Grid(scale, torch.zeros_like(scale), low, high)
    lowest, highest = lowest.clamp(max=0.0), highest.clamp(min=0.0)
    width = highest - lowest
    width = torch.where(width == 0, torch.full_like(width, float(high - low)), width)
    scale = (width / (high - low)).clamp(min=_SMALLEST)
    return Grid(scale, low - torch.round(lowest / scale), low, high)


def of_groups(held: Tensor, columns: int) -> Tensor:
    """What is held for each group of columns (dimension 1), once a column; as it is where it is held otherwise.

    Groups are of one size, but for the last, which may be smaller.
    """
    groups = held.shape[1] if held.dim() > 1 else 1
    if not 1 < groups < columns:
        return held
    return held.repeat_interleave(-(-columns // groups), 1)[:, :columns]


def as_multiplier_and_shift(scale: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """A factor for integer hardware: scale is about multiplier / 2^shift, the multiplier of `bits` bits, rounded down.

    Jacob et al. 2018, section 2.2. Shapes: that of `scale`, positive; both results are whole numbers as floats.
    """
    exact = scale.double()  # float32 takes 2^21 - 1 and 2^21 for the same power of 2
    shift = torch.floor(torch.log2((2**bits - 1) / exact))
    return torch.floor(exact * 2.0**shift).to(scale.dtype), shift.to(scale.dtype)


_ATTRIBUTE = "_raydistill_grid"


def grid_under(values: Tensor) -> Grid | None:
    """The grid that these values were rounded to in this forward pass; None where that is not known."""
    found = getattr(values, _ATTRIBUTE, None)
    return found if isinstance(found, Grid) else None


def on_grid(values: Tensor, grid: Grid | None) -> Tensor:
    """The same values, which are known to lie on that grid; None: on none that is known any more."""
    if grid is not None:
        setattr(values, _ATTRIBUTE, grid)
    elif hasattr(values, _ATTRIBUTE):
        delattr(values, _ATTRIBUTE)
    return values
