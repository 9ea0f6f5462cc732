"""ASHA's decisions on hand-written cases, their reasons, and their replay."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from raydistill.sweep.trial_scheduler import EPOCHS_DONE, FAILURE, ExplainedASHA, score_of


def asha(planned: dict[str, float] | None = None, **changes: Any) -> ExplainedASHA:
    arguments: dict[str, Any] = {"max_t": 16, "grace_period": 4, "reduction_factor": 2, "score": {"top1": 1.0}}
    return ExplainedASHA(**{**arguments, **changes}, planned_sparsity=planned or {})


def report(scheduler: ExplainedASHA, trial_id: str, epochs: int, **figures: Any) -> str:
    """As Tune calls it."""
    trial = SimpleNamespace(trial_id=f"tune-{trial_id}", config={"trial_id": trial_id})
    return scheduler.on_trial_result(None, trial, {EPOCHS_DONE: epochs, **figures})


def test_the_best_so_far_goes_on_and_a_weaker_one_stops() -> None:
    scheduler = asha()
    assert report(scheduler, "a", 4, top1=0.5) == TrialScheduler.CONTINUE  # nobody to compare with
    assert report(scheduler, "b", 4, top1=0.7) == TrialScheduler.CONTINUE
    assert report(scheduler, "c", 4, top1=0.4) == TrialScheduler.STOP  # the median of 0.5 and 0.7 is 0.6
    assert scheduler.reasons == {
        "c": "stopped after 4 of 16 epochs: score 0.400 below the rung's cutoff 0.600 (rung 4, 2 trials before it)"
    }


def test_between_rungs_nobody_is_stopped() -> None:
    scheduler = asha()
    report(scheduler, "a", 4, top1=0.9)
    assert report(scheduler, "b", 3, top1=0.0) == TrialScheduler.CONTINUE  # in the grace period
    report(scheduler, "b", 4, top1=0.95)
    assert report(scheduler, "b", 5, top1=0.0) == TrialScheduler.CONTINUE
    assert report(scheduler, "b", 7, top1=0.0) == TrialScheduler.CONTINUE


def test_a_survivor_runs_to_the_end() -> None:
    """Ray's own would put a rung at the last epoch and stop a trial that has nothing left to train."""
    scheduler = asha()
    for epoch in range(1, 17):
        assert report(scheduler, "a", epoch, top1=0.9) == TrialScheduler.CONTINUE
    for epoch in range(1, 16):
        report(scheduler, "b", epoch, top1=0.95)
    assert report(scheduler, "b", 16, top1=0.1) == TrialScheduler.CONTINUE
    assert not scheduler.reasons


def test_hard_pruning_is_not_punished_when_planned_sparsity_is_weighed() -> None:
    planned = {"mild": 0.5, "hard": 0.95}
    plain, weighed = asha(planned), asha(planned, score={"top1": 1.0, "planned_sparsity": 0.3})
    for scheduler in (plain, weighed):
        report(scheduler, "mild", 4, top1=0.70)
    assert report(plain, "hard", 4, top1=0.65) == TrialScheduler.STOP
    assert report(weighed, "hard", 4, top1=0.65) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("others", [0, 3])
def test_a_score_that_is_no_number_stops(others: int) -> None:
    scheduler = asha()
    for index in range(others):
        report(scheduler, f"o{index}", 4, top1=0.5)
    assert report(scheduler, "nan", 2, top1=math.nan) == TrialScheduler.STOP
    assert scheduler.reasons["nan"] == "stopped after 2 of 16 epochs: its score is not a number"
    assert report(scheduler, "later", 4, top1=0.6) == TrialScheduler.CONTINUE


def test_a_failure_stops_its_trial_without_a_reason_of_asha() -> None:
    scheduler = asha()
    assert report(scheduler, "a", 1, **{FAILURE: "the loss is NaN"}) == TrialScheduler.STOP
    assert not scheduler.reasons


def test_score_is_a_weighted_sum() -> None:
    figures = {"top1": 0.8, "sparsity": 0.4, "loss": 2.0}
    assert score_of({"top1": 1.0, "loss": -0.1, "planned_sparsity": 0.5}, figures, 0.9) == pytest.approx(
        0.8 - 0.2 + 0.45
    )


def _story(seed: int) -> list[tuple[str, int, dict[str, float]]]:
    """Twelve trials, four at a time, results in a random order."""
    rng = random.Random(seed)
    waiting = [f"t{i:04d}" for i in range(12)]
    running: dict[str, int] = {}
    events = []
    while waiting or running:
        while waiting and len(running) < 4:
            running[waiting.pop(0)] = 0
        trial = rng.choice(sorted(running))
        running[trial] += 1
        events.append((trial, running[trial], {"top1": rng.random()}))
        if running[trial] == 16:
            del running[trial]
    return events


@pytest.mark.parametrize("seed", range(5))
def test_decisions_are_rays_own(seed: int) -> None:
    """The subclass only explains: trial by trial, epoch by epoch, Ray's scheduler decides the same."""
    ours = asha()
    theirs = ASHAScheduler(
        time_attr=EPOCHS_DONE,
        metric="top1",
        mode="max",
        max_t=16,
        grace_period=4,
        reduction_factor=2,
        stop_last_trials=False,
    )
    stopped: set[str] = set()
    added: dict[str, SimpleNamespace] = {}
    for trial_id, epochs, figures in _story(seed):
        if trial_id in stopped or epochs == 16:
            continue
        if trial_id not in added:
            added[trial_id] = SimpleNamespace(trial_id=trial_id, config={"trial_id": trial_id})
            theirs.on_trial_add(None, added[trial_id])
        result = {EPOCHS_DONE: epochs, **figures}
        expected = theirs.on_trial_result(None, added[trial_id], result)
        assert ours.on_trial_result(None, added[trial_id], result) == expected
        if expected == TrialScheduler.STOP:
            stopped.add(trial_id)
    assert set(ours.reasons) == stopped
    assert stopped


@pytest.mark.parametrize("cut", [1, 17, 40, 80])
def test_replayed_results_give_the_same_decisions(cut: int) -> None:
    """Interrupted after `cut` results and resumed: what comes after is decided as if nothing had happened."""
    events = _story(3)
    whole = asha()
    for trial_id, epochs, figures in events:
        if trial_id not in whole.reasons:
            whole.decide(trial_id, epochs, figures)
    before, after = asha(), asha()
    journal = []
    for trial_id, epochs, figures in events[:cut]:
        if trial_id not in before.reasons:
            journal.append((trial_id, epochs, figures))
            before.decide(trial_id, epochs, figures)
    for event in journal:
        after.decide(*event)
    for trial_id, epochs, figures in events[cut:]:
        if trial_id not in after.reasons:
            after.decide(trial_id, epochs, figures)
    assert after.reasons == whole.reasons
    assert len(whole.reasons) > 2
