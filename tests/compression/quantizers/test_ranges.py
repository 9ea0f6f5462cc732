"""Ranges of tensors and of statistics, worked out by hand."""

from __future__ import annotations

import pytest
import torch

from raydistill.compression.quantizers.grid import Mode
from raydistill.compression.quantizers.ranges import Clip, range_of_statistics, unfit, value_range

X = torch.tensor([[-4.0, 0.0, 1.0], [-2.0, 2.0, 9.0]])


def ends(found: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    return float(found[0]), float(found[1])


def test_of_a_tensor() -> None:
    assert ends(value_range(X, Mode.SYMMETRIC, 8)) == (-4.0, 9.0)
    assert ends(value_range(X, Mode.ASYMMETRIC_SIGNED, 8, Clip.AVG)) == (-3.0, 5.0)
    lows, highs = value_range(X, Mode.SYMMETRIC, 8, per_channel=True)
    assert (lows.tolist(), highs.tolist()) == ([-4.0, -2.0], [1.0, 9.0])
    mean, std = 1.0, float(X.std())
    found = ends(value_range(X, Mode.ASYMMETRIC_UNSIGNED, 8, Clip.N_STD, num_stds=1.0))
    assert found == pytest.approx((mean - std, mean + std))
    assert ends(value_range(X, Mode.ASYMMETRIC_UNSIGNED, 8, Clip.N_STD, num_stds=9.0)) == (-4.0, 9.0)


def test_of_a_distribution_the_reach_is_the_papers_figure_times_its_width() -> None:
    b = float((X - 1.0).abs().mean())
    found = ends(value_range(X, Mode.SYMMETRIC, 4, Clip.LAPLACE))
    assert found == pytest.approx((-(1.0 + 5.03 * b), 1.0 + 5.03 * b))
    found = ends(value_range(X, Mode.SYMMETRIC, 4, Clip.GAUSS))
    assert found[1] == pytest.approx(1.0 + 2.55 * float(X.std()))


def test_of_statistics_behind_a_relu_half_of_the_numbers_is_not_given_away() -> None:
    facts = {"min": 0.0, "max": 9.0, "avg_min": 0.0, "avg_max": 5.0, "mean": 1.0, "std": 2.0, "b": 1.5}
    whole = ends(range_of_statistics(facts, Mode.ASYMMETRIC_UNSIGNED, 4, Clip.LAPLACE))
    half = ends(range_of_statistics(facts, Mode.ASYMMETRIC_UNSIGNED, 4, Clip.LAPLACE, half_range=True))
    assert whole == pytest.approx((0.0, 2 * 5.03 * 1.5))
    assert half == pytest.approx((0.0, 6.2 * 1.5))
    assert ends(range_of_statistics(facts, Mode.ASYMMETRIC_UNSIGNED, 4, Clip.AVG)) == (0.0, 5.0)
    assert ends(range_of_statistics(facts, Mode.ASYMMETRIC_UNSIGNED, 4, Clip.N_STD, 2.0)) == (0.0, 5.0)


def test_counting_leaves_an_outlier_out() -> None:
    torch.manual_seed(0)
    values = torch.randn(50_000)
    values[0] = 30.0
    for clip in (Clip.PERCENTILE, Clip.MSE):
        assert ends(value_range(values, Mode.SYMMETRIC, 4, clip, percentile=99.9))[1] < 5


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((Mode.SYMMETRIC, 8, Clip.N_STD, 0.0, False, False), "must be above 0"),
        ((Mode.SYMMETRIC, 9, Clip.GAUSS, 2.0, False, False), "up to 8 bits"),
        ((Mode.SYMMETRIC, 8, Clip.LAPLACE, 2.0, True, False), "has no half range"),
        ((Mode.ASYMMETRIC_SIGNED, 8, Clip.AVG, 2.0, False, True), "is not known per channel"),
        ((Mode.ASYMMETRIC_SIGNED, 8, Clip.MSE, 2.0, False, True), "is not known per channel"),
    ],
)
def test_what_has_no_meaning_is_said(arguments: tuple, text: str) -> None:
    assert text in unfit(*arguments)
    mode, bits, clip, stds, half, per_channel = arguments
    with pytest.raises(ValueError, match=text):
        value_range(X, mode, bits, clip, stds, half, per_channel)
