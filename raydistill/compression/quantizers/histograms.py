"""How often which values were seen, and the ranges that are found from that.

A range that leaves out what is rare (a percentile), and the one whose rounded values differ least from the values, in
mean square (the search of TensorRT and of ONNX Runtime's calibration; Krishnamoorthi 2018, arXiv 1806.08342).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from raydistill.compression.quantizers.grid import Mode, grid_of

BINS = 2048
_CANDIDATES = 100


@dataclass(frozen=True)
class Histogram:
    """counts: float64, of bins of equal width from lowest to highest."""

    counts: Tensor
    lowest: float
    highest: float

    @property
    def middles(self) -> Tensor:
        """Of the bins, float64."""
        width = (self.highest - self.lowest) / len(self.counts)
        return self.lowest + width * (torch.arange(len(self.counts), dtype=torch.float64) + 0.5)

    def within(self, lowest: float, highest: float) -> Histogram:
        """The same with every value brought into this range."""
        middles = self.middles.clamp(lowest, highest)
        return _of(
            middles, self.counts, min(max(self.lowest, lowest), highest), max(min(self.highest, highest), lowest)
        )


def histogram_of(values: Tensor, lowest: float, highest: float, bins: int = BINS) -> Histogram:
    """Of these values; what lies outside of the range counts at its end."""
    values = values.detach().flatten().double().cpu()
    return _of(values.clamp(lowest, highest), torch.ones_like(values), lowest, highest, bins)


def _of(values: Tensor, weights: Tensor, lowest: float, highest: float, bins: int = BINS) -> Histogram:
    width = (highest - lowest) / bins
    at = ((values - lowest) / width).long().clamp(0, bins - 1) if width > 0 else torch.zeros_like(values).long()
    return Histogram(torch.zeros(bins, dtype=torch.float64).index_add_(0, at, weights), lowest, highest)


def percentile_range(histogram: Histogram, percentile: float, symmetric: bool) -> tuple[float, float]:
    """The range that holds `percentile` percent of all values; as many are left out at both ends.

    symmetric: as many of the absolute values, around zero. percentile: in (50, 100].
    """
    middles, counts = histogram.middles, histogram.counts
    if symmetric:
        order = middles.abs().argsort()
        reach = float(middles.abs()[order][_first(counts[order].cumsum(0), percentile / 100)])
        return max(-reach, histogram.lowest), min(reach, histogram.highest)
    outside = (1 - percentile / 100) / 2
    sums = counts.cumsum(0)
    if outside == 0:
        return histogram.lowest, histogram.highest
    return float(middles[_first(sums, outside)]), float(middles[_first(sums, 1 - outside)])


def _first(sums: Tensor, share: float) -> int:
    """The first bin up to which there is this share of all."""
    return int(torch.searchsorted(sums, share * float(sums[-1])).clamp(max=len(sums) - 1))


def least_error_range(histogram: Histogram, bits: int, mode: Mode) -> tuple[float, float]:
    """Of a hundred ranges, each a part of the whole one, the one with the least mean square error of rounding."""
    values, counts = histogram.middles.float(), histogram.counts
    best, least = (histogram.lowest, histogram.highest), float("inf")
    for step in range(_CANDIDATES, 0, -1):
        share = step / _CANDIDATES
        lowest, highest = histogram.lowest * share, histogram.highest * share
        if lowest > 0 or highest < 0:  # zero is in every range
            lowest, highest = min(lowest, 0.0), max(highest, 0.0)
        rounded = grid_of(lowest, highest, bits, mode).nearest(values)
        error = float((counts * (rounded - values).double().square()).sum())
        if error < least:
            best, least = (lowest, highest), error
    return best
