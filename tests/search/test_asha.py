"""ASHA: its decisions and its reasons on hand-written cases, and Ray's own on random ones."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest

from raydistill.search.asha import ASHA
from raydistill.search.decisions import GO_ON, STOP, by_score

TOP1 = {"top1": 1.0}


def asha(score: dict[str, float] | None = None, **more: Any) -> ASHA:
    return ASHA(by_score(score or TOP1), **{"max_epochs": 16, "grace_period": 4, "reduction_factor": 2, **more})


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


@pytest.mark.parametrize(
    ("told", "score", "why"),
    [
        ([0.5], 0.4, "score 0.400 below the rung's cutoff 0.500 (rung 4, 1 trial before it)"),
        ([0.5], 0.5, ""),  # who equals the cutoff goes on
        ([0.1, 0.9], 0.49, "score 0.490 below the rung's cutoff 0.500 (rung 4, 2 trials before it)"),
        ([0.5, 0.1, 0.2], 0.19, "score 0.190 below the rung's cutoff 0.200 (rung 4, 3 trials before it)"),
        ([0.5, 0.1, 0.2], 0.3, ""),  # 0.1 and 0.2 were stopped there, and count all the same
        ([-math.inf, math.inf], 0.0, ""),  # between them is no number: nobody stops for it
    ],
)
def test_a_newcomer_is_held_against_those_before_it(told: list[float], score: float, why: str) -> None:
    trial_scheduler = asha()
    for trial, before in enumerate(told):
        trial_scheduler.result(trial, 4, {"top1": before})
    verdict = trial_scheduler.result(9, 4, {"top1": score})
    assert verdict.action == (STOP if why else GO_ON)
    assert verdict.why == (f"stopped after 4 of 16 epochs: {why}" if why else "")


def test_one_in_four_goes_on_where_the_factor_is_four() -> None:
    trial_scheduler = asha(reduction_factor=4)
    for trial, before in enumerate((0.4, 0.3, 0.2, 0.1, 0.0)):
        trial_scheduler.result(trial, 4, {"top1": before})
    assert trial_scheduler.result(8, 4, {"top1": 0.29}).action == STOP  # the 75th percentile is 0.3
    assert trial_scheduler.result(9, 4, {"top1": 0.31}).action == GO_ON


def test_a_trial_that_was_not_seen_at_a_rung_enters_the_highest_it_is_past() -> None:
    trial_scheduler = asha()
    trial_scheduler.result(0, 4, {"top1": 0.9})
    assert trial_scheduler.result(1, 9, {"top1": 0.1}).action == GO_ON  # the first at rung 8
    assert trial_scheduler.result(1, 5, {"top1": 0.1}).action == STOP  # and told late of the lower one: below 0.9


def test_rungs_stand_at_fractions_of_epochs_too() -> None:
    trial_scheduler = ASHA(by_score(TOP1), max_epochs=16, grace_period=1, reduction_factor=2.5)  # 1, 2.5, 6.25, 15.625
    trial_scheduler.result(0, 3, {"top1": 0.9})
    assert "(rung 2.5, 1 trial before it)" in trial_scheduler.result(1, 3, {"top1": 0.1}).why


def test_told_twice_changes_nothing() -> None:
    trial_scheduler = asha()
    for _ in range(2):
        assert trial_scheduler.result(0, 4, {"top1": 0.5}).action == GO_ON
    assert trial_scheduler.result(1, 4, {"top1": 0.4}).action == STOP
    assert trial_scheduler.result(1, 4, {"top1": 0.4}).action == GO_ON
    assert "1 trial before" not in trial_scheduler.result(2, 4, {"top1": 0.3}).why


@pytest.mark.parametrize("wrong", [{"reduction_factor": 1}, {"grace_period": 0}, {"grace_period": 17}])
def test_arguments_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs reduction_factor"):
        asha(**wrong)


def _story(rng: random.Random, max_epochs: int) -> list[tuple[int, int, float]]:
    """Twelve trials, four at a time, results in a random order; scores on a coarse grid, so that some are equal."""
    waiting = list(range(12))
    running: dict[int, int] = {}
    events = []
    while waiting or running:
        while waiting and len(running) < 4:
            running[waiting.pop(0)] = 0
        trial = rng.choice(sorted(running))
        running[trial] += rng.choice((1, 1, 1, 2))
        events.append((trial, min(running[trial], max_epochs), rng.choice((rng.random(), rng.randint(-4, 4) / 4))))
        if running[trial] >= max_epochs:
            del running[trial]
    return events


@pytest.mark.parametrize("seed", range(60))
def test_decisions_are_rays_own(seed: int) -> None:
    """Trial by trial, epoch by epoch, Ray's scheduler decides the same; its rungs and trials are all that varies."""
    from ray.tune.schedulers import ASHAScheduler, TrialScheduler

    rng = random.Random(seed)
    max_epochs = rng.randint(1, 81)
    limits = {"grace_period": rng.randint(1, max_epochs), "reduction_factor": rng.choice((2, 3, 4, 1.5, 2.7))}
    if seed % 2:
        limits["grace_period"] = 1
    ours = ASHA(by_score(TOP1), max_epochs=max_epochs, **limits)  # type: ignore[arg-type]
    theirs = ASHAScheduler(
        time_attr="epochs_done", metric="top1", mode="max", max_t=max_epochs, stop_last_trials=False, **limits
    )
    stopped: set[int] = set()
    added: dict[int, SimpleNamespace] = {}
    for trial, epochs, top1 in _story(rng, max_epochs):
        if trial in stopped or epochs == max_epochs:  # theirs has a rung at the end, ours has nothing to decide there
            continue
        if trial not in added:
            added[trial] = SimpleNamespace(trial_id=str(trial))
            theirs.on_trial_add(None, added[trial])
        expected = theirs.on_trial_result(None, added[trial], {"epochs_done": epochs, "top1": top1})
        verdict = ours.result(trial, epochs, {"top1": top1})
        assert (verdict.action == STOP) == (expected == TrialScheduler.STOP), (trial, epochs, top1)
        if expected == TrialScheduler.STOP:
            stopped.add(trial)
    assert stopped or limits["grace_period"] > 1
