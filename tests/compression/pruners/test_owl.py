"""Levels by outliers, against the paper's formula written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raydistill.compression.pruners.owl import outlier_ratio, shifted


def test_the_ratio_counts_what_lies_above_so_many_means() -> None:
    scores = [torch.tensor([1.0, 1.0, 1.0]), torch.tensor([[1.0, 16.0]])]  # the mean is 4
    assert outlier_ratio(scores, 3.0) == 0.2
    assert outlier_ratio(scores, 5.0) == 0.0


def test_blocks_of_one_size_have_the_papers_levels() -> None:
    """Densities: ratios scaled to a width of 2 lambda, moved so that their mean is 1 - S (the authors' script)."""
    ratios, spread, sparsity = np.array([0.05, 0.02, 0.01, 0.03]), 0.08, 0.7
    scaled = (ratios - ratios.min()) / (ratios.max() - ratios.min()) * 2 * spread
    expected = 1.0 - (scaled - scaled.mean() + (1.0 - sparsity))
    assert shifted([sparsity] * 4, list(ratios), [100] * 4, spread) == pytest.approx(list(expected))


def test_the_total_is_what_was_said_also_where_a_level_stops() -> None:
    levels = shifted([0.95, 0.95, 0.95], [0.1, 0.0, 0.02], [100, 300, 50], 0.1)
    assert np.average(levels, weights=[100, 300, 50]) == pytest.approx(0.95)
    assert max(levels) <= 0.999
    assert levels[0] < levels[2] <= levels[1]


def test_blocks_that_are_alike_keep_their_levels() -> None:
    assert shifted([0.5, 0.7], [0.02, 0.02], [10, 20], 0.08) == [0.5, 0.7]
