"""Ranges from counts, against what sorting all of the values gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raydistill.compression.quantizers.grid import Mode, grid_of
from raydistill.compression.quantizers.histograms import histogram_of, least_error_range, percentile_range

VALUES = torch.randn(50_000, generator=torch.Generator().manual_seed(0)) + 0.5


def counted(values: torch.Tensor = VALUES):
    return histogram_of(values, float(values.min()), float(values.max()))


def test_counts_are_those_of_numpy_and_what_lies_outside_counts_at_the_end() -> None:
    found = histogram_of(torch.tensor([-5.0, 0.1, 0.9, 1.0, 7.0]), 0.0, 1.0, bins=2)
    assert found.counts.tolist() == [2.0, 3.0]
    assert counted().counts.sum() == len(VALUES)
    theirs, _ = np.histogram(VALUES.double().numpy(), bins=len(counted().counts))
    assert (counted().counts.numpy() - theirs).__abs__().sum() <= 4  # at the edges of bins


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_a_percentile_leaves_out_as_much_as_it_says(percentile: float) -> None:
    lowest, highest = percentile_range(counted(), percentile, symmetric=False)
    outside = (100 - percentile) / 2
    theirs = np.percentile(VALUES.numpy(), [outside, 100 - outside])
    assert (lowest, highest) == pytest.approx(tuple(theirs), abs=0.01)
    lowest, highest = percentile_range(counted(), percentile, symmetric=True)
    assert max(-lowest, highest) == pytest.approx(np.percentile(VALUES.abs().numpy(), percentile), abs=0.01)


def test_all_of_them_is_the_whole_range() -> None:
    assert percentile_range(counted(), 100.0, symmetric=False) == (counted().lowest, counted().highest)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_no_other_share_of_the_range_has_a_smaller_error(mode: Mode, bits: int) -> None:
    def error(lowest: float, highest: float) -> float:
        return float((grid_of(lowest, highest, bits, mode).nearest(VALUES) - VALUES).square().mean())

    found = least_error_range(counted(), bits, mode)
    shares = [(VALUES.min().item() * share / 50, VALUES.max().item() * share / 50) for share in range(1, 51)]
    assert error(*found) <= min(error(*share) for share in shares) * 1.02
    assert error(*found) <= error(VALUES.min().item(), VALUES.max().item())


def test_of_nothing_but_one_value_the_range_is_that() -> None:
    same = histogram_of(torch.full((5,), 2.0), 2.0, 2.0)
    assert same.counts.sum() == 5
    assert percentile_range(same, 99.0, symmetric=False) == (2.0, 2.0)


def test_within_brings_all_into_a_range() -> None:
    cut = counted().within(0.0, 1.0)
    assert (cut.lowest, cut.highest) == (0.0, 1.0)
    assert cut.counts.sum() == len(VALUES)
    assert cut.counts[0] >= (VALUES < 0).sum() - 60
