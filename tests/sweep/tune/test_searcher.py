"""Ray Tune is given the search driver's legs."""

from __future__ import annotations

import copy
from typing import Any

from ray.tune.search import Searcher

from raydistill.sweep.search_driver import Leg
from raydistill.sweep.tune.searcher import TuneSearcher


class Plan:
    trial_id = "t0007"


class Legs:
    """A search driver with these legs left."""

    def __init__(self, *legs: Leg | None) -> None:
        self.legs, self.done = list(legs), False

    def next_leg(self) -> Leg | None:
        return self.legs.pop(0)


def test_a_leg_is_a_trial_of_tunes_and_no_leg_is_a_pause_or_the_end() -> None:
    plan: Any = Plan()
    legs: Any = Legs(Leg(plan, 3, 9), None, None)
    searcher = TuneSearcher(legs)
    suggested: Any = searcher.suggest("of Tune's own")
    assert {key: value for key, value in suggested.items() if key != "plan"} == {
        "trial_id": "t0007",
        "known": 3,
        "until": 9,
    }
    assert searcher.suggest("x") is None
    legs.done = True
    assert searcher.suggest("x") == Searcher.FINISHED


def test_tune_copies_and_pickles_none_of_it() -> None:
    legs: Any = Legs()
    searcher = TuneSearcher(legs)
    assert copy.deepcopy(searcher) is searcher
    assert searcher.__getstate__() == {}
    assert searcher.set_search_properties("top1", "max", {})
