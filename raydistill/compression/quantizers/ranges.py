"""The range of floats that a tensor is quantized over: all of it, or less, so that what is inside gets finer steps.

Clipping: NONE; AVG, the mean over the first dimension (samples of a batch, or filters) of each one's extremes; N_STD,
so many standard deviations around the mean; GAUSS and LAPLACE, where the expected squared error of a tensor of that
distribution is least (ACIQ: Banner et al. 2018, arXiv 1810.05723); both know what lies behind a ReLU (half range).
PERCENTILE leaves out what is rare, MSE takes the range with the least squared error of these very values: both count
them (`histograms`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import torch
from torch import Tensor

from raydistill.compression.quantizers.grid import Mode
from raydistill.compression.quantizers.histograms import Histogram, histogram_of, least_error_range, percentile_range

_GAUSS = (1.24, 1.71, 2.15, 2.55, 2.93, 3.28, 3.61, 3.92, 4.2)
"""Clipping value in standard deviations, of 1 bit and more; of half a range that of one bit more."""
_LAPLACE = (1.05, 1.86, 2.83, 3.89, 5.03, 6.2, 7.41, 8.64, 9.89, 11.16)
"""In mean absolute deviations, of 0 bits and more."""
_LAPLACE_HALF_3 = 5.02
"""Distiller's value of 3 bits and half a range, where the table says 5.03."""


class Clip(str, Enum):
    """How much of a tensor's range is left out."""

    NONE = "NONE"
    AVG = "AVG"
    N_STD = "N_STD"
    GAUSS = "GAUSS"
    LAPLACE = "LAPLACE"
    PERCENTILE = "PERCENTILE"
    MSE = "MSE"

    @property
    def counts(self) -> bool:
        """Whether a histogram of the values is needed."""
        return self in (Clip.PERCENTILE, Clip.MSE)

    @property
    def of_distribution(self) -> bool:
        return self in (Clip.GAUSS, Clip.LAPLACE)


def most_bits(clip: Clip, half_range: bool = False) -> int:
    """The most bits that a way of clipping is known for."""
    return 8 if clip.of_distribution else 32


def value_range(
    values: Tensor,
    mode: Mode,
    bits: int,
    clip: Clip = Clip.NONE,
    num_stds: float = 2.0,
    half_range: bool = False,
    per_channel: bool = False,
    percentile: float = 99.99,
) -> tuple[Tensor, Tensor]:
    """Lowest and highest float that is told apart, of shape () or (channels,), the channels being dimension 0.

    percentile: of the values that are inside, in (50, 100].

    Raises:
        ValueError: the combination has no meaning (`unfit` says it beforehand).
    """
    reason = unfit(mode, bits, clip, num_stds, half_range, per_channel)
    if reason:
        raise ValueError(reason)
    rows = values.flatten(1) if values.dim() > 1 else values
    if per_channel:
        return rows.amin(-1), rows.amax(-1)
    lowest, highest = values.min(), values.max()
    if clip is Clip.NONE:
        return lowest, highest
    if clip is Clip.AVG:
        return rows.amin(-1).mean(), rows.amax(-1).mean()
    if clip.counts:
        counted = histogram_of(values, float(lowest), float(highest))
        found = range_of_histogram(counted, mode, bits, clip, percentile)
        return found[0].to(values.device), found[1].to(values.device)
    mean = values.mean()
    facts = {"min": lowest, "max": highest, "avg_min": lowest, "mean": mean, "std": values.std()}
    facts["b"] = (values - mean).abs().mean()
    return range_of_statistics(facts, mode, bits, clip, num_stds, half_range)


def range_of_histogram(
    histogram: Histogram, mode: Mode, bits: int, clip: Clip, percentile: float = 99.99
) -> tuple[Tensor, Tensor]:
    """The range of PERCENTILE or MSE, of what was counted."""
    if clip is Clip.MSE:
        lowest, highest = least_error_range(histogram, bits, mode)
    else:
        lowest, highest = percentile_range(histogram, percentile, mode.symmetric)
    return torch.tensor(lowest, dtype=torch.float32), torch.tensor(highest, dtype=torch.float32)


def range_of_statistics(
    facts: Mapping[str, Tensor | float],
    mode: Mode,
    bits: int,
    clip: Clip = Clip.NONE,
    num_stds: float = 2.0,
    half_range: bool = False,
) -> tuple[Tensor, Tensor]:
    """The same of what was collected: min, max, avg_min, avg_max, mean, std and b (mean absolute deviation).

    Raises:
        ValueError: as `value_range`.
    """
    reason = unfit(mode, bits, clip, num_stds, half_range, False)
    if reason:
        raise ValueError(reason)
    known = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in facts.items()}
    if clip is Clip.NONE:
        return known["min"], known["max"]
    if clip is Clip.AVG:
        return known["avg_min"], known["avg_max"]
    mean = known["mean"]
    if clip is Clip.N_STD:
        reach = num_stds * known["std"]
        return torch.maximum(known["min"], mean - reach), torch.minimum(known["max"], mean + reach)
    reach = (
        known["std"] * _GAUSS[bits - 1 + half_range] if clip is Clip.GAUSS else known["b"] * _laplace(bits, half_range)
    )
    if mode.symmetric:
        return -(mean.abs() + reach), mean.abs() + reach
    lowest = torch.maximum(known["avg_min"], mean - reach)
    return lowest, lowest + (reach if half_range else 2 * reach)


def unfit(mode: Mode, bits: int, clip: Clip, num_stds: float, half_range: bool, per_channel: bool) -> str:
    """Why a range cannot be found so; "" where it can."""
    if clip is Clip.N_STD and not num_stds > 0:
        return "the number of standard deviations must be above 0"
    if clip.of_distribution and bits > most_bits(clip):
        return f"{clip.value} is known for up to {most_bits(clip)} bits"
    if half_range and mode.symmetric:
        return f"{mode.value} has no half range: half of its numbers would never be used"
    if per_channel and clip is not Clip.NONE:
        return f"{clip.value} is not known per channel"
    return ""


def _laplace(bits: int, half_range: bool) -> float:
    return _LAPLACE_HALF_3 if half_range and bits == 3 else _LAPLACE[bits + half_range]
