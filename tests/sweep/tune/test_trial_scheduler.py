"""Ray Tune does what the search driver wants."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from raydistill.sweep.tune.trial_scheduler import TuneTrialScheduler


class Stops:
    """A search driver that stops one trial, and what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def report(self, trial_id: str, result: object) -> bool:
        self.told.append((trial_id, result))
        return trial_id != "t0001"


def test_the_answer_is_tunes_word_for_it() -> None:
    driver: Any = Stops()
    scheduler = TuneTrialScheduler(driver)
    controller: Any = None
    answers = [
        scheduler.on_trial_result(controller, SimpleNamespace(config={"trial_id": trial_id}), {"x": 1})
        for trial_id in ("t0000", "t0001")
    ]
    assert answers == [TrialScheduler.CONTINUE, TrialScheduler.STOP]
    assert driver.told == [("t0000", {"x": 1}), ("t0001", {"x": 1})]


def test_of_the_living_the_first_that_waits_runs() -> None:
    def trial(trial_id: str, status: str) -> SimpleNamespace:
        return SimpleNamespace(trial_id=trial_id, status=status, PENDING=Trial.PENDING)

    trials = [trial("c", Trial.PENDING), trial("a", Trial.RUNNING), trial("b", Trial.PENDING)]
    controller: Any = SimpleNamespace(get_live_trials=lambda: trials)
    driver: Any = Stops()
    chosen = TuneTrialScheduler(driver).choose_trial_to_run(controller)
    assert chosen is trials[2]
    nobody: Any = SimpleNamespace(get_live_trials=lambda: trials[1:2])
    assert TuneTrialScheduler(driver).choose_trial_to_run(nobody) is None


def test_tune_looks_for_no_metric_and_copies_nothing() -> None:
    driver: Any = Stops()
    scheduler = TuneTrialScheduler(driver)
    assert scheduler.metric is None
    assert copy.deepcopy(scheduler) is scheduler
    assert scheduler.__getstate__() == {}
    assert scheduler.set_search_properties("top1", "max")
