"""Warm starts: what each kind of entry comes to, what is refused, and that the first trials are they."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.errors import ConfigError
from raydistill.records import RUNNING, TrialRecord
from raydistill.search.searchers import PlacedSearcher
from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.planning.seeds import Seed, seeds_from_json, seeds_to_json
from raydistill.sweep.record.journal import FORMAT, History
from raydistill.sweep.record.resume import check_same
from raydistill.tasks.classification import ImageShape

CIFAR = ImageShape(10, (3, 32, 32))

WriteSweep = Callable[..., Path]
LR, FC1, FC2 = "training.lr", "per_layer.fc1.weight.final_sparsity", "per_layer.fc2.weight.final_sparsity"
HAND_WRITTEN: dict[str, Any] = {
    "version": 1,
    "pruners": {
        "first": {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.99,
                  "weights": ["fc1.weight"]},
        "other": {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.25,
                  "weights": ["conv2.weight"]},
    },
    "policies": [
        {"pruner": {"instance_name": name}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1}
        for name in ("first", "other")
    ],
}  # fmt: skip


@pytest.fixture
def schedule(tmp_path: Path) -> str:
    (tmp_path / "agp.yaml").write_text(yaml.safe_dump(HAND_WRITTEN))
    return "agp.yaml"


@pytest.mark.slow
def test_a_sweep_begins_with_them_and_draws_the_others_as_ever(write_sweep: WriteSweep) -> None:
    drawn = plan_sweep(load_sweep(write_sweep()), CIFAR).trials
    start = {FC1: 0.9, LR: 0.03, "per_layer.fc2.weight.final_sparsity": 0.5}
    plan = plan_sweep(load_sweep(write_sweep(("warm_start", [start]))), CIFAR)
    assert [trial.trial_id for trial in plan.trials] == ["t0000", "t0001", "t0002"]
    assert plan.trials[0].values == start
    assert [trial.origin for trial in plan.trials] == ["warm_start[0]", "", ""]
    assert plan.trials[0].run.lr == 0.03
    assert [trial.values for trial in plan.trials[1:]] == [trial.values for trial in drawn[:2]]


def test_what_is_left_out_takes_the_schedules_or_trainings_value_else_the_middle(write_sweep: WriteSweep) -> None:
    search = {
        LR: {"loguniform": [0.01, 0.05]},
        "training.momentum": {"uniform": [0.0, 0.5]},
        "policies.agp.frequency": {"choice": [2, 1, 3]},
        "per_layer": [
            {"weights": ["fc1.weight"], "final_sparsity": {"uniform": [0.3, 0.95]}},
            {"weights": ["fc2.weight"], "final_sparsity": {"uniform": [0.6, 0.9]}},
        ],
    }
    (first, *_) = plan_sweep(load_sweep(write_sweep(("search", search), ("warm_start", [{FC1: 0.9}]))), CIFAR).trials
    expected = {LR: 0.02, "training.momentum": 0.25, "policies.agp.frequency": 1, FC1: 0.9, FC2: 0.75}
    assert first.values == pytest.approx(expected), "0.9 and 0.5 lie outside: the middle"


def test_mlflows_spelling_of_a_key_path_is_taken_too(write_sweep: WriteSweep) -> None:
    search = ("search", {"policies[0].frequency": {"choice": [1, 2]}})
    (first, *_) = plan_sweep(
        load_sweep(write_sweep(search, ("warm_start", [{"policies.0.frequency": 2}]))), CIFAR
    ).trials
    assert first.values == {"policies[0].frequency": 2}


def test_a_schedule_is_trained_as_it_is_and_its_values_are_read_off(write_sweep: WriteSweep, schedule: str) -> None:
    plan = plan_sweep(load_sweep(write_sweep(("warm_start", [schedule]))), CIFAR)
    first = plan.trials[0]
    assert yaml.safe_load(first.schedule_text)["pruners"] == HAND_WRITTEN["pruners"]
    assert first.values == {LR: 0.02, FC1: 0.99}
    assert first.planned_sparsity == pytest.approx((int(0.99 * 48000) + 600) / 61770)
    assert (first.origin, first.run.lr) == ("schedule agp.yaml", 0.02)
    outside, unread = plan.warnings
    assert outside.endswith(f"agp.yaml lies outside the search: {FC1} 0.99 (uniform(0.3, 0.95))")
    assert f"agp.yaml does not say {FC2}" in unread


def test_a_schedule_with_two_levels_for_one_weight_says_none(write_sweep: WriteSweep, tmp_path: Path) -> None:
    both = json.loads(json.dumps(HAND_WRITTEN))
    both["pruners"]["other"]["weights"] = ["fc1.weight"]
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(both))
    assert FC1 not in plan_sweep(load_sweep(write_sweep(("warm_start", ["both.yaml"]))), CIFAR).trials[0].values


@pytest.mark.slow
def test_fewer_epochs_shorten_a_schedule_too(write_sweep: WriteSweep, schedule: str) -> None:
    sweep = load_sweep(write_sweep(("warm_start", [schedule])), Overrides(epochs=2))
    policies = yaml.safe_load(plan_sweep(sweep, CIFAR).trials[0].schedule_text)["policies"]
    assert [policy["ending_epoch"] for policy in policies] == [2, 2]


ENTRY = {"sweep": "first", "top": 2}


@pytest.mark.slow
def test_another_sweeps_params_become_values_of_this_space(write_sweep: WriteSweep) -> None:
    sweep = load_sweep(write_sweep(("warm_start", [ENTRY]), ("schedule/pruners/agp/final_sparsity", 0.6)))
    inside = dict.fromkeys((FC1,), "0.8125")
    seeds = {0: (Seed("t0003", {**inside, "pruners.x.y": "2"}), Seed("t0001", {FC1: "0.99", LR: "word"}, True))}
    plan = plan_sweep(sweep, CIFAR, seeds=seeds_from_json(json.loads(json.dumps(seeds_to_json(seeds)))))
    assert [trial.origin for trial in plan.trials] == ["sweep first t0003", "sweep first t0001", ""]
    assert plan.trials[0].values == {LR: 0.02, FC1: 0.8125, FC2: 0.6}
    assert plan.trials[1].values == {LR: 0.02, FC1: 0.95, FC2: 0.6}
    text = "\n".join(plan.warnings)
    assert "sweep 'first' searched pruners.x.y, not searched here and left out" in text
    assert f"did not search all that is searched here; taken instead: {FC2} 0.6" in text
    assert f"moved: t0001's {FC1} 0.99 to 0.95, t0001's training.lr word to 0.02" in text
    assert "trained t0001 by hand-written schedules; only their values are taken" in text
    assert len(plan.warnings) == 4
    with pytest.raises(ConfigError, match=r"\[0\].sweep: searched nothing that is searched here, got 'first'"):
        plan_sweep(sweep, CIFAR, seeds={0: (Seed("t0000", {"a.b": "1"}),)})


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ([], "warm_start: must be a list of at least one start, got []"),
        ("agp.yaml", "warm_start: must be a list of at least one start, got 'agp.yaml'"),
        ([{}], "warm_start[0]: must be values by key path, a schedule file or a sweep"),
        ([7], "warm_start[0]: must be values by key path, a schedule file or a sweep, got 7"),
        (["apg.yaml"], "warm_start[0]: no such schedule file, got 'apg.yaml'; did you mean 'agp.yaml'?"),
        ([{FC1.replace("weight", "wieght"): 0.5}], f"is not searched; did you mean '{FC1}'?"),
        ([{FC1: 0.99}], f"warm_start[0].{FC1}: must be one that the search can draw, uniform(0.3, 0.95), got 0.99"),
        ([{FC1: True}], "must be one that the search can draw, uniform(0.3, 0.95), got True"),
        ([{FC1: None}], f"warm_start[0].{FC1}: must be a finite number, text, true or false"),
        ([{"sweep": "x"}], "warm_start[0].top: is missing"),
        ([{"sweep": "x", "top": 0}], "warm_start[0].top: must be at least 1, got 0"),
        ([{"swep": "x", "sweep": "y", "top": 1}], "warm_start[0].swep: unknown key; did you mean 'sweep'?"),
        ([{"sweep": "x", "top": 3}, {FC1: 0.5}], "warm_start: begins 4 trials, more than num_samples (3)"),
    ],
)
def test_what_is_wrong_is_one_line(write_sweep: WriteSweep, schedule: str, start: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(load_sweep(write_sweep(("warm_start", start))), CIFAR)
    assert says in str(caught.value)
    assert "space.yaml: warm_start" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_schedule_that_does_not_fit(write_sweep: WriteSweep, tmp_path: Path) -> None:
    wrong = json.loads(json.dumps(HAND_WRITTEN).replace("conv2.weight", "conv9.weight").replace('": 4', '": 9'))
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(ConfigError) as caught:
        plan_sweep(load_sweep(write_sweep(("warm_start", ["wrong.yaml"]))), CIFAR)
    text = str(caught.value)
    assert "wrong.yaml: policies[0].ending_epoch: must end within training.epochs (4) (as a warm start of" in text
    assert "conv9.weight" in text


@pytest.mark.slow
def test_a_resumed_sweep_must_begin_alike(write_sweep: WriteSweep, schedule: str, tmp_path: Path) -> None:
    def resumed(history: History, *start: object) -> None:
        sweep = load_sweep(write_sweep(("warm_start", list(start))))
        check_same(sweep.file, history, sweep.config(), {"name": "d", "fingerprint": "f"}, plan_sweep(sweep, CIFAR))

    sweep = load_sweep(write_sweep(("warm_start", [{FC1: 0.9}, schedule])))
    values = dict(plan_sweep(sweep, CIFAR).trials[0].values)
    started = {"format": FORMAT, "config": sweep.config(), "dataset": {"name": "d", "fingerprint": "f"}}
    history = History(start=started, records={"t0000": TrialRecord("t0000", values, RUNNING, "a", "d", 0)})
    resumed(history, {FC1: 0.9}, schedule)
    with pytest.raises(ConfigError, match=r"\[0\]\.per_layer\.fc1.* must be as the sweep was started \(0.9\)"):
        resumed(history, {FC1: 0.8}, schedule)
    with pytest.raises(ConfigError, match="warm_start: must be as the sweep was started"):
        resumed(history, {FC1: 0.9})
    (tmp_path / "agp.yaml").write_text(yaml.safe_dump(HAND_WRITTEN).replace("0.25", "0.75"))
    with pytest.raises(ConfigError, match=r"warm_start\[1\]\.pruners\.other\.final_sparsity: must be as .*\(0.25\)"):
        resumed(history, {FC1: 0.9}, schedule)


def test_auto_leaves_the_trials_to_what_will_be_measured(write_sweep: WriteSweep) -> None:
    levels = {"per_layer": {"final_sparsity": {"uniform": [0.1, 0.95]}, "weights": ["fc1.weight", "fc2.weight"]}}
    plan = plan_sweep(load_sweep(write_sweep(("search", levels), ("warm_start", [{FC1: 0.9}, "auto"]))), CIFAR)
    assert [trial.origin for trial in plan.trials] == ["warm_start[0]"]
    assert isinstance(plan.searcher, PlacedSearcher)
    assert "by what each layer loses" in plan.searcher.how
    assert plan.count == 3


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"search": {LR: {"uniform": [0.01, 0.02]}}}, "warm_start: auto is for levels of layers, and none is searched"),
        ({"objectives": {"top1": "max"}}, "warm_start: auto weighs one metric of the task against one figure"),
        (
            {"searcher": {"name": "amc"}, "constraints": ["sparsity >= 0.5"]},
            "amc's trials are the best of its episodes",
        ),
    ],
)
def test_auto_is_refused_in_one_line_where_there_is_nothing_to_place(
    write_sweep: WriteSweep, changes: dict[str, Any], line: str
) -> None:
    file = write_sweep(*changes.items(), ("warm_start", "auto"))
    with pytest.raises(ConfigError) as caught:
        plan_sweep(load_sweep(file), CIFAR)
    (said,) = str(caught.value).splitlines()
    assert line in said


@pytest.mark.slow
def test_more_samples_change_nothing_of_what_was_drawn(write_sweep: WriteSweep) -> None:
    """The trials behind those that are placed are the searcher's first, however many there will be."""
    levels = {"per_layer": {"final_sparsity": {"uniform": [0.1, 0.95]}, "weights": ["fc1.weight", "fc2.weight"]}}
    few, many = (
        plan_sweep(load_sweep(write_sweep(("search", levels), ("warm_start", "auto"), ("num_samples", n))), CIFAR)
        for n in (6, 40)
    )
    for trial in range(12):
        assert few.searcher.suggest(trial, (), [4]) == many.searcher.suggest(trial, (), [4])
