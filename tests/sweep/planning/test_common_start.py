"""Which epochs trials have in common: those before anything that is searched acts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import Plan, plan_sweep, shares_the_start
from raydistill.tasks.classification import ImageShape
from tests.sweep.planning.trunks import BRANCHES

CIFAR = ImageShape(10, (3, 32, 32))
PER_LAYER = {"weights": ["fc1.weight", "fc2.weight"], "final_sparsity": {"uniform": [0.3, 0.95]}}
AGP = {"pruner": {"instance_name": "agp"}, "starting_epoch": 3, "ending_epoch": 6, "frequency": 1}
LATE: list[tuple[str, Any]] = [
    ("search", {"per_layer": PER_LAYER}),
    ("training/epochs", 8),
    ("schedule/policies", [AGP]),
]

WriteSweep = Callable[..., Path]


def planned(write_sweep: WriteSweep, *changes: tuple[str, Any]) -> Plan:
    return plan_sweep(load_sweep(write_sweep(*LATE, *changes)), CIFAR)


def test_they_end_where_the_first_pruner_acts_that_is_searched(write_sweep: WriteSweep) -> None:
    plan = planned(write_sweep)
    assert plan.common_start == 3
    assert all(shares_the_start(plan, trial) for trial in plan.trials)


@pytest.mark.parametrize(("changes", "epochs"), [
    ([("search", {"training.lr": {"loguniform": [0.01, 0.05]}, "per_layer": PER_LAYER})], 0),
    ([("search", {"policies[0].starting_epoch": {"randint": [2, 5]}})], 2),
    ([("search", {"policies[0].frequency": {"choice": [1, 2]}})], 3),
    ([("schedule/policies", [AGP, {**AGP, "starting_epoch": 0, "ending_epoch": 1}])], 0),
    ([("num_samples", 1)], 0),
    ([("trial_scheduler", {"name": "asha", "grace_period": 2})], 2),
    ([("trial_scheduler", {"name": "asha", "grace_period": 5})], 3),
    ([("training/trains", False)], 0),
])  # fmt: skip
def test_what_is_searched_and_what_stops_trials_bound_them(
    write_sweep: WriteSweep, changes: list[tuple[str, Any]], epochs: int
) -> None:
    assert planned(write_sweep, *changes).common_start == epochs


@pytest.mark.parametrize(("section", "said", "kind", "argument", "ends"), [
    ("lr_schedulers", {"class": "StepLR", "step_size": 2}, "lr_scheduler", "lr_schedulers.other.gamma", 0),
    ("regularizers", {"class": "L1Regularizer", "reg_regims": {"conv2.weight": 1e-5}}, "regularizer", None, 3),
    ("quantizers", {"class": "WRPNQuantizer", "bits_weights": 8, "bits_activations": 8}, "quantizer",
     "quantizers.other.bits_weights", 0),
])  # fmt: skip
def test_what_changes_a_run_before_it_acts_leaves_none(
    write_sweep: WriteSweep, section: str, said: dict[str, Any], kind: str, argument: str | None, ends: int
) -> None:
    acts = {kind: {"instance_name": "other"}, "starting_epoch": 4, "ending_epoch": 8, "frequency": 1}
    drawn = {"quantizers.other.bits_weights": {"choice": [2, 8]}, "lr_schedulers.other.gamma": {"uniform": [0.1, 0.9]}}
    searched = {} if argument is None else {argument: drawn[argument]}
    plan = planned(
        write_sweep,
        (f"schedule/{section}", {"other": said}),
        ("schedule/policies", [AGP, acts]),
        ("search", {"per_layer": PER_LAYER, **searched}),
    )
    assert plan.common_start == ends


def test_a_trial_that_trains_otherwise_does_not_share_them(write_sweep: WriteSweep) -> None:
    plan = planned(write_sweep)
    trial = plan.trials[0]
    assert not shares_the_start(plan, replace(trial, run=replace(trial.run, lr=0.03)))
    assert not shares_the_start(plan, replace(trial, run=replace(trial.run, seed=7)))
    early = load_sweep(write_sweep(*LATE, ("schedule/policies", [{**AGP, "starting_epoch": 2}])))
    assert not shares_the_start(plan, plan_sweep(early, CIFAR).trials[0])


def test_branches_of_a_trunk_have_none(write_sweep: WriteSweep) -> None:
    assert plan_sweep(load_sweep(write_sweep(*BRANCHES)), CIFAR).common_start == 0


def test_with_another_seed_a_trial_trains_them_itself(write_sweep: WriteSweep) -> None:
    trial = replace(planned(write_sweep).trials[0], fork="starts/x/checkpoint.pt")
    assert trial.repeated("t0000", trial.run.seed, "out").fork == "starts/x/checkpoint.pt"
    again = trial.repeated("t0000_s1", trial.run.seed + 1, "out")
    assert (again.fork, again.run.seed, again.run.out_dir, again.trial_id) == (None, 1, "out", "t0000_s1")
