from __future__ import annotations

import pytest

from raydistill.compression.rates import PolicyTime, cubic_level, exponential_level


def test_agp_is_the_papers_curve_and_ends_exactly_at_the_last_scheduled_epoch() -> None:
    # Computed by hand from eq. 1 with start 1, end 100 (exclusive), frequency 2: scheduled epochs 1, 3, ..., 99.
    assert cubic_level(0.15, 0.8, PolicyTime(1, 1, 100, 2)) == pytest.approx(0.15)
    assert cubic_level(0.15, 0.8, PolicyTime(50, 1, 100, 2)) == pytest.approx(0.71875)
    assert cubic_level(0.15, 0.8, PolicyTime(99, 1, 100, 2)) == 0.8


def test_a_frequency_that_does_not_divide_the_window_still_ends_at_the_final_level() -> None:
    last = list(range(5, 38, 3))[-1]
    assert cubic_level(0.0, 0.9, PolicyTime(last, 5, 38, 3)) == 0.9
    assert cubic_level(0.0, 0.9, PolicyTime(last - 3, 5, 38, 3)) < 0.9


def test_a_single_scheduled_epoch_prunes_to_the_final_level() -> None:
    assert cubic_level(0.1, 0.6, PolicyTime(3, 3, 4, 1)) == 0.6
    assert cubic_level(0.1, 0.6, PolicyTime(3, 3, 10, 20)) == 0.6


def test_levels_never_fall_along_a_policy() -> None:
    levels = [cubic_level(0.2, 0.9, PolicyTime(epoch, 2, 40, 3)) for epoch in range(2, 40, 3)]
    assert levels == sorted(levels)


def test_an_exponential_rate_keeps_the_same_share_of_what_is_left_at_every_step() -> None:
    # From density 0.8 to 0.05 in four steps each keeps (0.05 / 0.8) ** 0.25 = 0.5 of the weights.
    levels = [exponential_level(0.2, 0.95, PolicyTime(epoch, 3, 8, 1)) for epoch in range(3, 8)]
    assert levels == pytest.approx([0.2, 0.6, 0.8, 0.9, 0.95])
