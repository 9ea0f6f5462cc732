"""Bounds and start points from sensitivity curves, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from raydistill.compression.sensitivity import Point
from raydistill.compression.tolerance import no_drop, tolerances
from raydistill.errors import ConfigError
from raydistill.metrics import Metric
from raydistill.tasks.classification.metrics import METRICS

TOP1 = METRICS["top1"]


def curve(weight: str, **top1: float) -> list[Point]:
    """``curve("fc", at0=0.9, at50=0.8)``: top1 at 0 and 50 %."""
    return [Point(weight, int(k[2:]) / 100, int(k[2:]) / 100, {"top1": value}) for k, value in top1.items()]


def test_a_curve_that_falls() -> None:
    (found,) = tolerances(
        curve("fc", at0=0.9, at20=0.9, at40=0.88, at60=0.8, at80=0.5), "top1", TOP1, 0.1, samples=10_000
    )
    assert (found.unhurt, found.borne, found.measured) == (0.4, 0.6, 0.8), "2 and 10 points lower"
    assert (found.lower, found.upper) == (0.2, 0.84), "half of 0.4, and 1 - 0.4 * 0.4"
    assert [found.start_point(name) for name in ("conservative", "middle", "aggressive")] == [0.3, 0.6, 0.72]
    assert not found.dense
    assert not found.insensitive


def test_between_two_levels_the_line_is_followed_and_the_first_fall_counts() -> None:
    (found,) = tolerances(curve("fc", at0=0.9, at20=0.9, at60=0.7, at80=0.9), "top1", TOP1, 0.1, samples=10_000)
    assert found.borne == 0.4, "half-way down from 0.9 to 0.7"
    assert found.unhurt == 0.24


def test_a_weight_that_never_drops_is_known_up_to_the_last_level_only() -> None:
    (found,) = tolerances(curve("fc", at0=0.9, at50=0.91, at90=0.9), "top1", TOP1, 0.1, samples=10_000)
    assert found.insensitive
    assert (found.lower, found.upper, found.borne) == (0.45, 0.99, 0.9)


def test_a_weight_that_drops_at_once_stays_dense() -> None:
    firm, loose = tolerances(
        [*curve("conv", at0=0.9, at10=0.1), *curve("fc", at0=0.9, at10=0.85)], "top1", TOP1, 0.1, samples=10_000
    )
    assert (firm.weight, firm.dense) == ("conv", True)
    assert (loose.weight, loose.dense) == ("fc", False)


def test_a_drop_that_few_images_cannot_tell_counts_as_none() -> None:
    assert no_drop(0.2, TOP1, 0.5, 10_000) == pytest.approx(0.04), "a fifth"
    assert no_drop(0.2, TOP1, 0.5, 25) == pytest.approx(0.1), "the standard error, a half over five"
    assert no_drop(0.05, TOP1, 0.5, 25) == 0.05, "never above the largest drop"


@pytest.mark.parametrize("max_drop", [0.0, 1.0, float("nan")])
def test_a_drop_out_of_range(max_drop: float) -> None:
    with pytest.raises(ConfigError, match="must be above 0 and below 1"):
        tolerances(curve("fc", at0=0.9, at50=0.8), "top1", TOP1, max_drop, 100)


@pytest.mark.parametrize("levels", [{"at0": 0.9}, {"at10": 0.9, "at20": 0.8}])
def test_a_curve_without_the_dense_network(levels: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="fc needs a level of 0 and at least one above it"):
        tolerances(curve("fc", **levels), "top1", TOP1, 0.1, 100)


def test_a_metric_that_is_better_small_drops_when_it_rises() -> None:
    perplexity = Metric("min")
    found = [Point("fc.weight", level, level, {"perplexity": value}) for level, value in ((0.0, 80.0), (0.5, 90.0))]
    (tolerance,) = tolerances(found, "perplexity", perplexity, 5.0, samples=100)
    assert tolerance.borne == 0.25, "half-way to 10 more"
    assert tolerance.unhurt == 0.05, "a fifth of it, whatever the number of samples"
    with pytest.raises(ConfigError, match="max drop: must be above 0, got 0"):
        tolerances(found, "perplexity", perplexity, 0.0, samples=100)
