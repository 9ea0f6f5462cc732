"""A file's words as objects that search: each menu's method, with the numbers that are left out filled in."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.search import Objective, SearchSpace
from raydistill.search.asha import ASHA
from raydistill.search.constraints import Constraint
from raydistill.search.decisions import GO_ON, STOP, RunAll
from raydistill.search.distributions import Uniform
from raydistill.search.halving import Halving
from raydistill.search.median import MedianStopping
from raydistill.search.searchers import SEARCHERS
from raydistill.search.space import Dimension
from raydistill.sweep.file.spec import SearcherSection, TrialSchedulerSection
from raydistill.sweep.planning.methods import (
    compared_too_early,
    grace_period,
    make_search,
    make_searcher,
    make_trial_scheduler,
    rungs,
)

OBJECTIVES = (Objective("top1", "max"), Objective("sparsity", "max"))
SPACE = SearchSpace((Dimension("x", Uniform(0.2, 0.8)),))


@pytest.mark.parametrize(
    ("said", "kind", "expected"),
    [
        ({"name": "none"}, RunAll, []),
        ({"name": "median"}, MedianStopping, []),
        ({"name": "asha"}, ASHA, [4, 8]),
        ({"name": "moasha", "grace_period": 3}, Halving, [3, 6, 12]),
        ({"name": "moasha", "grace_period": 2, "reduction_factor": 4}, Halving, [2, 8]),
        ({"name": "hyperband", "grace_period": 5}, Halving, [5, 10]),
    ],
)
def test_trials_of_16_epochs_are_compared_at_these(said: dict[str, Any], kind: type, expected: list[int]) -> None:
    section = TrialSchedulerSection(**said)
    assert rungs(section, 16) == expected
    assert type(make_trial_scheduler(section, OBJECTIVES, 16)) is kind
    assert grace_period(section, 16) == said.get("grace_period", 4)
    assert grace_period(TrialSchedulerSection(), 3) == 1  # never none at all


def test_hyperband_has_all_of_its_brackets_unless_the_file_says_fewer() -> None:
    def rungs_of(**said: Any) -> list[list[int]]:
        scheduler = make_trial_scheduler(TrialSchedulerSection(**said), OBJECTIVES, 16)
        assert isinstance(scheduler, Halving)
        return [[rung.epochs for rung in bracket] for bracket in scheduler.brackets]

    assert rungs_of(name="hyperband", grace_period=2) == [[2, 4, 8], [4, 8], [8], []]
    assert rungs_of(name="hyperband", grace_period=2, brackets=2) == [[2, 4, 8], [4, 8]]
    assert rungs_of(name="moasha", grace_period=2) == [[2, 4, 8]]
    assert rungs_of(name="moasha", grace_period=4, brackets=9) == [[4, 8], [8], []]


def test_what_is_compared_is_what_the_file_says() -> None:
    """At the first rung of two trials the weaker one stops, by the score or by the objectives."""
    first = {"top1": 0.9, "sparsity": 0.1, "planned_sparsity": 0.1, "loss": 1.0}
    second = {"top1": 0.1, "sparsity": 0.9, "planned_sparsity": 0.9, "loss": 0.5}
    for score, weaker in (({"top1": 1.0}, second), ({"planned_sparsity": 1.0}, first), ({"loss": -1.0}, first)):
        scheduler = make_trial_scheduler(TrialSchedulerSection(name="asha", score=score), OBJECTIVES, 16)
        better = first if weaker is second else second
        assert scheduler.result(0, 4, better).action == GO_ON
        assert scheduler.result(1, 4, weaker).action == STOP
    both = make_trial_scheduler(TrialSchedulerSection(name="moasha"), OBJECTIVES, 16)
    assert both.result(0, 4, first).action == GO_ON
    dominated = {**first, "top1": 0.8, "planned_sparsity": 0.05}
    assert both.result(1, 4, dominated).action == STOP


MISSING = set() if importlib.util.find_spec("botorch") else {"qnehvi"}


@pytest.mark.parametrize("name", sorted(set(SEARCHERS) - {"amc"} - MISSING))  # amc wants its episodes first
def test_every_searcher_of_the_menu_draws_within_the_space_and_the_same_again(name: str) -> None:
    section = SearcherSection(name=name, **({"points": 4} if name == "grid" else {}))
    draws = []
    for _ in range(2):
        search = make_search(
            section, TrialSchedulerSection(name="none"), make_searcher(section, SPACE, 3, 6), OBJECTIVES, 4, 6
        )
        orders = [search.next() for _ in range(4)]
        draws.append([search.observations[order.trial].values["x"] for order in orders])
    assert draws[0] == draws[1]
    assert all(0.2 <= value <= 0.8 for value in draws[0])
    assert len(set(draws[0])) == 4


@pytest.mark.parametrize(("count", "startup"), [(4, 4), (24, 6), (400, 10)])
def test_a_quarter_of_the_trials_come_before_a_model(count: int, startup: int) -> None:
    assert make_searcher(SearcherSection(name="tpe"), SPACE, 0, count).startup == startup
    assert make_searcher(SearcherSection(name="tpe", startup=5), SPACE, 0, count).startup == 5


def schedule(*ending_epochs: int) -> ScheduleSpec:
    pruner = {"class": "AutomatedGradualPruner", "initial_sparsity": 0, "final_sparsity": 0.5, "weights": ["w"]}
    policies = [
        {"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": end, "frequency": 2}
        for end in ending_epochs
    ]
    policies.append(
        {"lr_scheduler": {"instance_name": "decay"}, "starting_epoch": 0, "ending_epoch": 40, "frequency": 1}
    )
    decay = {"class": "StepLR", "step_size": 9}
    return parse_schedule(
        {"version": 1, "pruners": {"p": pruner}, "lr_schedulers": {"decay": decay}, "policies": policies}, "s.yaml"
    )


WEIGHED = {"top1": 1.0, "planned_sparsity": 0.3}


@pytest.mark.parametrize(
    ("said", "warned"),
    [
        ({"name": "hyperband", "grace_period": 10, "score": WEIGHED}, True),
        ({"name": "asha", "score": WEIGHED}, True),  # a quarter of a trial: 10
        ({"name": "median", "grace_period": 28, "score": WEIGHED}, True),
        ({"name": "median", "grace_period": 29, "score": WEIGHED}, False),
        ({"name": "hyperband", "grace_period": 10, "score": {"top1": 1.0}}, False),
        ({"name": "hyperband", "grace_period": 10, "score": {"top1": 1.0, "planned_sparsity": 0.1}}, False),
        ({"name": "asha", "grace_period": 10, "score": {"loss": -1.0, "planned_sparsity": 0.11}}, True),
        ({"name": "asha", "grace_period": 10, "score": {"planned_sparsity": 0.01}}, True),
        ({"name": "hyperband", "grace_period": 40, "score": WEIGHED}, False),
        ({"name": "moasha", "grace_period": 10}, False),
        ({"name": "none"}, False),
    ],
)
def test_a_sum_that_is_compared_before_masks_are_final_is_warned_of(said: dict[str, Any], warned: bool) -> None:
    """Every second epoch from 0 to below 30: the last of them is 28, so masks are final after 29."""
    lines = compared_too_early(TrialSchedulerSection(**said), 40, [schedule(12), schedule(30)], "f: trial_scheduler")
    assert len(lines) == warned
    if said["name"] == "hyperband" and warned:
        assert lines == (
            "f: trial_scheduler.grace_period: hyperband compares scores with planned_sparsity 0.3 before masks are "
            "final, after 29 epochs, got 10; 29 or more, or weigh it by 0.05, or {name: moasha}: so early it keeps "
            "whoever prunes hardest",
        )


def test_who_prunes_to_the_end_is_told_to_end_before() -> None:
    section = TrialSchedulerSection(name="asha", score=WEIGHED)
    (line,) = compared_too_early(section, 40, [schedule(40, 12)])
    assert "after 39 epochs, got 10; 39 or more" in line
    (line,) = compared_too_early(section, 39, [schedule(40)])
    assert "got 9; prune until an earlier epoch" in line
    assert compared_too_early(section, 40, []) == ()


@pytest.mark.parametrize(("name", "steered"), [("evolution", True), ("additive", False)])
def test_bounds_on_the_network_steer_searchers_that_model_no_metric(name: str, steered: bool) -> None:
    """Of a trial that breaks one, `additive` still has to be told the metric that it had."""
    section, bound = SearcherSection(name=name), [Constraint("sparsity", ">=", 0.8)]
    search = make_search(
        section, TrialSchedulerSection(name="none"), make_searcher(section, SPACE, 3, 6), OBJECTIVES, 4, 6,
        constraints=bound,
    )  # fmt: skip
    trial = search.next().trial
    search.result(trial, 4, {"top1": 0.7, "sparsity": 0.4, "planned_sparsity": 0.4})
    expected = (0.7 - 0.5, 0.4 - 0.5) if steered else (0.7, 0.4)  # half of the bound is missing
    assert search.observations[trial].points[4] == pytest.approx(expected)
