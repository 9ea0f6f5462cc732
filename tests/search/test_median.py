"""The median stopping rule, on cases worked out by hand."""

from __future__ import annotations

import math

from raydistill.search.decisions import GO_ON, STOP, by_score
from raydistill.search.median import MedianStopping


def rule(grace_period: int = 2, minimum: int = 3) -> MedianStopping:
    return MedianStopping(by_score({"x": 1.0}), max_epochs=5, grace_period=grace_period, minimum=minimum)


def told(of: MedianStopping, trial: int, values: list[float]) -> list[str]:
    return [of.result(trial, epoch, {"x": value}).action for epoch, value in enumerate(values, start=1)]


def test_a_figure_is_held_against_the_median_of_the_others_at_the_same_epoch() -> None:
    of = rule()
    for trial, level in enumerate((0.2, 0.4, 0.6)):
        assert told(of, trial, [level] * 3) == [GO_ON] * 3  # fewer than three others have come as far
    # at epoch 2: 0.2, 0.4, 0.6; the median is 0.4
    assert told(of, 3, [0.1, 0.4, 0.4]) == [GO_ON] * 3, "what it was before does not count"
    verdict = of.result(4, 1, {"x": 0.0})
    assert verdict.action == GO_ON, "grace"
    verdict = of.result(4, 2, {"x": 0.1})
    assert verdict.why == "stopped after 2 of 5 epochs: score 0.100 below the median 0.400 of 4 other trials"


def test_a_trial_that_was_dense_and_is_pruned_too_hard_is_stopped() -> None:
    """All begin at 0.9, of the dense network: a best so far would stop nobody."""
    of = rule()
    for trial, last in enumerate((0.85, 0.8, 0.75)):
        assert told(of, trial, [0.9, 0.88, last]) == [GO_ON] * 3
    assert told(of, 3, [0.9, 0.88, 0.5]) == [GO_ON, GO_ON, STOP]
    assert told(of, 4, [0.9, 0.88, 0.8]) == [GO_ON] * 3  # 0.85, 0.8, 0.75, 0.5: the median is 0.775


def test_who_was_stopped_counts_as_below_later_on() -> None:
    """Of those that went on the half would be below their own median, at every epoch anew."""
    of = rule(minimum=2)
    told(of, 0, [0.6] * 4)
    told(of, 1, [0.4] * 2)
    assert told(of, 2, [0.3] * 2) == [GO_ON, STOP]  # below 0.5, of 0.6 and 0.4
    assert told(of, 3, [0.2] * 2) == [GO_ON, STOP]
    # at epoch 3: 0.6 and twice nothing: the median is that
    assert told(of, 4, [0.41] * 4) == [GO_ON] * 4
    alone = rule(minimum=2)
    told(alone, 0, [0.6] * 4)
    told(alone, 1, [0.5] * 4)
    assert told(alone, 2, [0.6, 0.6, 0.41, 0.41]) == [GO_ON, GO_ON, STOP, STOP]  # nobody was stopped before


def test_half_of_many_goes_on_to_the_end_whatever_the_number_of_epochs() -> None:
    """Trials that keep their order, the middle ones last: one in two is stopped, at the first epoch that may."""
    of = MedianStopping(by_score({"x": 1.0}), max_epochs=50, grace_period=5)
    first = [0.3, 0.7, 0.4, 0.6, 0.5]
    levels = first + [0.1 + 0.8 * (i * 7 % 40) / 40 for i in range(40)]
    ended = 0
    for trial, level in enumerate(levels):
        for epoch in range(1, 51):
            if of.result(trial, epoch, {"x": level}).action == STOP:
                assert epoch == 5
                break
        else:
            ended += 1
    assert 20 <= ended <= 28


def test_who_is_at_the_median_goes_on() -> None:
    of = rule(minimum=1)
    assert [told(of, trial, [0.5, 0.5]) for trial in (0, 1)] == [[GO_ON] * 2] * 2


def test_the_last_epoch_stops_nobody_and_a_known_one_says_nothing_new() -> None:
    of = rule(minimum=1)
    told(of, 0, [1.0] * 5)
    assert told(of, 1, [0.0] * 5) == [GO_ON, STOP, STOP, STOP, GO_ON]
    assert told(of, 1, [0.0] * 5) == [GO_ON] * 5
    verdict = rule().result(0, 1, {"x": math.nan})
    assert (verdict.action, verdict.why) == (STOP, "stopped after 1 of 5 epochs: its score is not a number")
