"""The median stopping rule, on cases worked out by hand."""

from __future__ import annotations

import math

from raydistill.search.decisions import GO_ON, STOP, by_score
from raydistill.search.median import MedianStopping


def rule(grace_period: int = 2, minimum: int = 3) -> MedianStopping:
    return MedianStopping(by_score({"x": 1.0}), max_epochs=5, grace_period=grace_period, minimum=minimum)


def told(of: MedianStopping, trial: int, values: list[float]) -> list[str]:
    return [of.result(trial, epoch, {"x": value}).action for epoch, value in enumerate(values, start=1)]


def test_the_best_so_far_is_held_against_the_median_of_running_means() -> None:
    of = rule()
    for trial, level in enumerate((0.2, 0.4, 0.6)):
        assert told(of, trial, [level] * 3) == [GO_ON] * 3  # fewer than three others have come as far
    # means at epoch 2: 0.2, 0.4, 0.6; the median is 0.4
    assert told(of, 3, [0.1, 0.39]) == [GO_ON, STOP]
    assert told(of, 4, [0.41, 0.0, 0.0]) == [GO_ON] * 3, "its best counts, not its latest"
    verdict = of.result(5, 1, {"x": 0.0})
    assert verdict.action == GO_ON, "grace"
    verdict = of.result(5, 2, {"x": 0.1})
    assert verdict.why == "stopped after 2 of 5 epochs: best score 0.100 below the median 0.245 of 5 other trials"


def test_running_means_are_means() -> None:
    of = rule(minimum=1)
    told(of, 0, [0.0, 1.0, 0.5])
    assert told(of, 1, [0.49, 0.49, 0.49]) == [GO_ON, STOP, STOP]
    assert told(of, 2, [0.5, 0.5, 0.5])[1] == GO_ON


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
