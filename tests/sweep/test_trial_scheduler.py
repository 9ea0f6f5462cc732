"""Ray's ASHA as a trial scheduler: its decisions on hand-written cases, its reasons, its replay."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from raydistill.search.decisions import GO_ON, STOP, by_score
from raydistill.sweep.tune.ray_asha import RayASHA

TOP1 = {"top1": 1.0}


def asha(score: dict[str, float] | None = None) -> RayASHA:
    return RayASHA(by_score(score or TOP1), max_epochs=16, grace_period=4, reduction_factor=2)


def test_the_best_so_far_goes_on_and_a_weaker_one_stops() -> None:
    trial_scheduler = asha()
    assert trial_scheduler.result(0, 4, {"top1": 0.5}).action == GO_ON  # nobody to compare with
    assert trial_scheduler.result(1, 4, {"top1": 0.7}).action == GO_ON
    verdict = trial_scheduler.result(2, 4, {"top1": 0.4})
    assert verdict.action == STOP  # the median of 0.5 and 0.7 is 0.6
    assert verdict.why == (
        "stopped after 4 of 16 epochs: score 0.400 below the rung's cutoff 0.600 (rung 4, 2 trials before it)"
    )


def test_between_rungs_nobody_is_stopped() -> None:
    trial_scheduler = asha()
    trial_scheduler.result(0, 4, {"top1": 0.9})
    assert trial_scheduler.result(1, 3, {"top1": 0.0}).action == GO_ON  # in the grace period
    trial_scheduler.result(1, 4, {"top1": 0.95})
    assert trial_scheduler.result(1, 5, {"top1": 0.0}).action == GO_ON
    assert trial_scheduler.result(1, 7, {"top1": 0.0}).action == GO_ON


def test_a_survivor_runs_to_the_end() -> None:
    """Ray's own would put a rung at the last epoch and stop a trial that has nothing left to train."""
    trial_scheduler = asha()
    for epochs in range(1, 17):
        assert trial_scheduler.result(0, epochs, {"top1": 0.9}).action == GO_ON
    for epochs in range(1, 16):
        trial_scheduler.result(1, epochs, {"top1": 0.95})
    assert trial_scheduler.result(1, 16, {"top1": 0.1}).action == GO_ON


def test_hard_pruning_is_not_punished_when_planned_sparsity_is_weighed() -> None:
    plain, weighed = asha(), asha({"top1": 1.0, "planned_sparsity": 0.3})
    for trial_scheduler in (plain, weighed):
        trial_scheduler.result(0, 4, {"top1": 0.70, "planned_sparsity": 0.5})
    hard = {"top1": 0.65, "planned_sparsity": 0.95}
    assert plain.result(1, 4, hard).action == STOP
    assert weighed.result(1, 4, hard).action == GO_ON


@pytest.mark.parametrize("others", [0, 3])
def test_a_score_that_is_no_number_stops(others: int) -> None:
    trial_scheduler = asha()
    for trial in range(others):
        trial_scheduler.result(trial, 4, {"top1": 0.5})
    verdict = trial_scheduler.result(8, 2, {"top1": math.nan})
    assert (verdict.action, verdict.why) == (STOP, "stopped after 2 of 16 epochs: its score is not a number")
    assert trial_scheduler.result(9, 4, {"top1": 0.6}).action == GO_ON


def _story(seed: int) -> list[tuple[int, int, float]]:
    """Twelve trials, four at a time, results in a random order."""
    rng = random.Random(seed)
    waiting = list(range(12))
    running: dict[int, int] = {}
    events = []
    while waiting or running:
        while waiting and len(running) < 4:
            running[waiting.pop(0)] = 0
        trial = rng.choice(sorted(running))
        running[trial] += 1
        events.append((trial, running[trial], rng.random()))
        if running[trial] == 16:
            del running[trial]
    return events


@pytest.mark.parametrize("seed", range(5))
def test_decisions_are_rays_own(seed: int) -> None:
    """Trial by trial, epoch by epoch, Ray's scheduler decides the same."""
    ours = asha()
    theirs = ASHAScheduler(
        time_attr="epochs_done",
        metric="top1",
        mode="max",
        max_t=16,
        grace_period=4,
        reduction_factor=2,
        stop_last_trials=False,
    )
    stopped: set[int] = set()
    added: dict[int, SimpleNamespace] = {}
    for trial, epochs, top1 in _story(seed):
        if trial in stopped or epochs == 16:
            continue
        if trial not in added:
            added[trial] = SimpleNamespace(trial_id=str(trial))
            theirs.on_trial_add(None, added[trial])
        expected = theirs.on_trial_result(None, added[trial], {"epochs_done": epochs, "top1": top1})
        assert (ours.result(trial, epochs, {"top1": top1}).action == STOP) == (expected == TrialScheduler.STOP)
        if expected == TrialScheduler.STOP:
            stopped.add(trial)
    assert stopped
