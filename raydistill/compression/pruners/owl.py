"""Levels by outliers: where more weights matter far more than the others of their block, less is pruned.

Yin et al. 2023 (OWL, arXiv 2310.05175). The outlier ratio of a block is the fraction of its scores (Wanda's) above M
times their mean; densities lie as the ratios do, within `spread` (the paper's lambda) of the density that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

_MOST = 0.999
_STEPS = 100


def outlier_ratio(scores: Sequence[Tensor], outlier: float) -> float:
    """The fraction of all these scores together that lies above `outlier` times their mean."""
    size = sum(part.numel() for part in scores)
    mean = sum(float(part.sum()) for part in scores) / size
    return sum(int((part > outlier * mean).sum()) for part in scores) / size


def shifted(levels: Sequence[float], ratios: Sequence[float], sizes: Sequence[int], spread: float) -> list[float]:
    """A level for each weight, so that their mean over all elements is that of `levels`.

    ratios: of each weight's block. sizes: elements of each. What would leave [0, 0.999] stops there, the others move.
    """
    said, ratio, size = np.asarray(levels, float), np.asarray(ratios, float), np.asarray(sizes, float)
    width = float(ratio.max() - ratio.min())
    if width == 0.0:
        return [float(level) for level in said]
    scaled = (ratio - ratio.min()) / width * 2.0 * spread
    wanted = said - (scaled - np.average(scaled, weights=size))
    target = np.average(said, weights=size)
    low, high = -1.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        found = np.average(np.clip(wanted + middle, 0.0, _MOST), weights=size)
        low, high = (middle, high) if found < target else (low, middle)
    return [float(level) for level in np.clip(wanted + high, 0.0, _MOST)]
