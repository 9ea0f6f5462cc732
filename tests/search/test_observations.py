"""What searchers learn from."""

from __future__ import annotations

import math

from raydistill.search.observations import Observation, comparable


def test_comparable_takes_the_latest_stage_that_enough_reached() -> None:
    def seen(trial: int, *points: tuple[int, float]) -> Observation:
        return Observation(trial, {}, {epochs: (top1,) for epochs, top1 in points})

    trials = [seen(0, (1, 0.1), (4, 0.2)), seen(1, (1, 0.3), (4, 0.4), (16, 0.5)), seen(2, (1, 0.6)), seen(3),
              seen(4, (1, 0.7), (4, math.nan)), seen(5, (2, 0.8))]  # fmt: skip

    def at(minimum: int) -> list[tuple[int, float]]:
        return [(o.trial, float(point[0])) for o, point in comparable(trials, [16, 1, 4], minimum)]

    assert at(1) == [(1, 0.5)]
    assert at(2) == [(0, 0.2), (1, 0.4)]
    assert at(3) == at(5) == [(0, 0.1), (1, 0.3), (2, 0.6), (4, 0.7), (5, 0.8)]  # 5 came at 2: its first from 1 on
    assert at(6) == []
    assert comparable([], [1], 1) == []


def test_at_takes_the_earliest_point_from_there_on() -> None:
    seen = Observation(0, {}, {9: (0.9,), 3: (0.3,), 1: (0.1,)})
    assert [seen.at(epochs) for epochs in (0, 1, 2, 3, 4, 9, 10)] == [
        (0.1,), (0.1,), (0.3,), (0.3,), (0.9,), (0.9,), None,
    ]  # fmt: skip


def test_a_trial_without_points_runs() -> None:
    assert not Observation(0, {}).ended
    assert Observation(0, {}).at(0) is None
    assert Observation(0, {}).points is not Observation(1, {}).points
