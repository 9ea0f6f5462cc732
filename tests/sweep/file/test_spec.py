"""The sections by themselves: what goes together, what does not, and what is short for what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from raydistill.datasets import DatasetConfig
from raydistill.parts import Optimizer
from raydistill.sweep.file.faults import validate
from raydistill.sweep.file.spec import (
    BaselineSection,
    DatasetSection,
    DistillationSection,
    ResourcesSection,
    SearcherSection,
    SweepSections,
    TaskSection,
    TrainingSection,
    TrainSection,
    TrialSchedulerSection,
    TrunkSection,
    beside,
)
from raydistill.tasks import TaskConfig
from raydistill.training import OwnLoop


@pytest.mark.parametrize(
    ("section", "said", "line"),
    [
        (TrainingSection, {"nesterov": True, "momentum": 0}, "f: nesterov needs a momentum above 0"),
        (
            TrainingSection,
            {"lr": 0.05, "optimizer": {"name": "AdamW"}},  # SGD's default, and written all the same
            "f: lr is SGD's, the optimizer is AdamW; say it in optimizer",
        ),
        (
            TrialSchedulerSection,
            {"name": "none", "grace_period": 2},
            "f: none has no use for grace_period (its options",
        ),
        (
            TrialSchedulerSection,
            {"name": "moasha", "score": {}},
            "f: moasha has no use for score (its options: brackets",
        ),
        (SearcherSection, {"name": "sobol", "startup": 4}, "f: sobol has no use for startup (its options: none)"),
        (SearcherSection, {"name": "mine:Own", "startup": 4}, "f: mine:Own has no use for startup (its options: args)"),
        (SearcherSection, {"name": "tpe", "args": {}}, "f: tpe has no use for args (its options: score, startup)"),
        (BaselineSection, {"mean": [0.5], "std": [0.5]}, "f: mean and std are for the weights of 'checkpoint'"),
        (BaselineSection, {"checkpoint": "m.pt", "mean": [0.5]}, "f: std: is missing beside mean; give both"),
        (BaselineSection, {"checkpoint": "m.pt", "mean": [0.5], "std": [0]}, "f: std: must be above 0, got [0.0]"),
        (TaskSection, {"name": ""}, "f: name: "),
        (TrainSection, {"name": "loop"}, "f: name: "),
    ],
)
def test_what_does_not_go_together_is_one_line(section: type[BaseModel], said: dict[str, Any], line: str) -> None:
    _, faults = validate(section, said, "f")
    assert len(faults) == 1
    assert str(faults[0]).startswith(line)
    assert "\n" not in str(faults[0])


def test_a_baseline_says_what_differs_and_no_more() -> None:
    assert BaselineSection().of_training() == {}
    assert BaselineSection(epochs=3, lr=0.1, batch_size=8).of_training() == {"epochs": 3, "batch_size": 8, "lr": 0.1}
    found = BaselineSection(lr=0.1).of_training(Optimizer(name="AdamW", lr=0.01, clip_norm=1.0))
    assert found == {"optimizer": Optimizer(name="AdamW", lr=0.1, clip_norm=1.0)}  # the rate is that optimizer's
    assert BaselineSection(lr=0.1).of_training(Optimizer()) == {"lr": 0.1}
    assert BaselineSection(checkpoint="m.pt", mean=(0.5,), std=(0.2,)).of_training() == {}


def test_a_bare_name_is_short_for_a_loop_and_what_is_drawn_goes_over_what_is_said() -> None:
    bare, said = (
        TrainSection.model_validate("mine:train"),
        TrainSection(name="mine:train", args={"lr": 0.1, "width": 3}),
    )
    assert bare.loop() == OwnLoop("mine:train", {})
    assert said.loop({"lr": 0.5}) == OwnLoop("mine:train", {"lr": 0.5, "width": 3})
    assert TaskSection().config() == TaskConfig()


def test_a_searchers_options_are_those_that_were_said() -> None:
    assert SearcherSection(name="evolution").options() == {}
    assert SearcherSection(name="evolution", step=0.2, parents=3).options() == {"step": 0.2, "parents": 3}
    assert SearcherSection(name="mine:Own").own
    assert not SearcherSection(name="gp").own


def test_no_epochs_are_one_in_which_nothing_is_trained() -> None:
    found = TrainingSection.model_validate({"epochs": 0, "lr": 0.1})
    assert (found.epochs, found.trains, found.lr) == (1, False, 0.1)
    assert TrainingSection().trains


LEAST = {"name": "s", "model": {"arch": "net"}, "schedule": "a.yaml", "search": {}}


def test_a_file_that_says_the_least_has_sixteen_trials_of_one_worker_each() -> None:
    found = SweepSections.model_validate(LEAST).model_dump()
    numbers = ("version", "num_samples", "confirm", "seed", "workers_per_trial", "max_failures")
    assert [found[name] for name in numbers] == [1, 16, 0, 0, 1, 1]
    assert [found[name] for name in ("constraints", "aliases", "resources_per_trial")] == [[], {}, None]
    scheduler = {key: value for key, value in found["trial_scheduler"].items() if value is not None}
    assert scheduler == {"name": "auto", "reduction_factor": 2.0, "mode": "stop", "spread": "epsilon_net"}
    assert {key: value for key, value in found["searcher"].items() if value is not None} == {"name": "auto"}
    assert ResourcesSection().model_dump() == {"cpu": None, "gpu": 0.0, "pack": 1}
    said = DistillationSection().model_dump()
    assert {key: value for key, value in said.items() if value is not None} == {
        "teacher": "baseline", "temperature": 4.0, "distill_wt": 0.7, "student_wt": 0.3, "start_epoch": 0,
        "hidden_wt": 1.0, "hidden_loss": "mse",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("section", "key", "fits", "does_not", "more"),
    [
        (SweepSections, "num_samples", 1, 0, LEAST),
        (SweepSections, "num_samples", 100_000, 100_001, LEAST),
        (SweepSections, "version", 1, 2, LEAST),
        (SweepSections, "name", "a" * 100, "a" * 101, LEAST),
        (TrunkSection, "branches", 1, 0, {"epochs": 3}),
        (TrunkSection, "branches", 1000, 1001, {"epochs": 3}),
        (TrunkSection, "initial_sparsity", 0.0, -0.1, {"epochs": 3}),
        (TrunkSection, "initial_sparsity", 0.99, 1.0, {"epochs": 3}),
        (TrunkSection, "final_sparsity", 0.01, 0.0, {"epochs": 3}),
        (TrunkSection, "final_sparsity", 0.99, 1.0, {"epochs": 3}),
        (TrunkSection, "weights", ["*"], [], {"epochs": 3}),
        (TrialSchedulerSection, "reduction_factor", 1.01, 1.0, {"name": "asha"}),
        (SearcherSection, "population", 2, 1, {"name": "nsga2"}),
        (SearcherSection, "step", 1.0, 1.1, {"name": "evolution"}),
        (SearcherSection, "step", 0.01, 0.0, {"name": "evolution"}),
        (SearcherSection, "action_range", [0, 1], [0], {"name": "amc"}),
        (SearcherSection, "action_range", [0, 1], [0, 0.5, 1], {"name": "amc"}),
    ],
)
def test_how_far_a_value_may_go(
    section: type[BaseModel], key: str, fits: object, does_not: object, more: dict[str, Any]
) -> None:
    assert validate(section, {**more, key: fits}, "f")[1] == []
    _, faults = validate(section, {**more, key: does_not}, "f")
    assert [fault.where.partition("[")[0] for fault in faults] == [f"f: {key}"]


def test_a_trunk_keeps_its_branches_evenly_and_prunes_all_weights_together() -> None:
    assert TrunkSection(epochs=4).kept == (1, 2, 3, 4)
    assert TrunkSection(epochs=10, branches=4).kept == (2, 5, 8, 10)
    assert TrunkSection(epochs=80).kept == tuple(range(2, 81, 2))
    assert TrunkSection(epochs=9, branches=1).kept == (9,)
    assert TrunkSection(epochs=6, final_sparsity=0.9, weights=["conv*"]).schedule() == {
        "version": 1,
        "pruners": {"trunk": {
            "class": "RankedPruner", "rate": "exponential", "scope": "global", "initial_sparsity": 0.3,
            "final_sparsity": 0.9, "weights": ["conv*"], "ranking": "magnitude", "granularity": "Element",
        }},
        "policies": [
            {"pruner": {"instance_name": "trunk"}, "starting_epoch": 0, "ending_epoch": 6, "frequency": 1},
        ],
    }  # fmt: skip
    assert TrunkSection(epochs=6).final_sparsity == 0.97


def test_options_without_a_name_are_ashas_and_nothing_at_all_is_left_to_the_tool() -> None:
    assert TrialSchedulerSection.model_validate({"grace_period": 2}).name == "asha"
    assert TrialSchedulerSection.model_validate({}).name == "auto"
    assert TrialSchedulerSection.model_validate({"name": "median", "grace_period": 2}).name == "median"


def test_a_data_section_is_what_the_datasets_take() -> None:
    said = DatasetSection(name="digits", validation=0.3, args={"a": 1})
    assert said.config() == DatasetConfig(name="digits", validation=0.3, args={"a": 1})
    assert type(said.config()) is DatasetConfig


def test_a_path_in_a_file_starts_beside_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "spaces" / "space.yaml"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert beside(file, "../a.pt") == tmp_path / "a.pt"
    assert beside(file, "/b.pt") == Path("/b.pt")
    assert beside(file, "~/c.pt") == tmp_path / "home" / "c.pt"


def test_a_journals_section_has_what_its_method_has_no_use_for_too() -> None:
    section = SearcherSection(name="evolution", step=0.2)
    assert SearcherSection.of_journal(section.model_dump()) == section
    told = TrialSchedulerSection.of_journal({"name": "none", "grace_period": 3, "odd": 1})
    assert (told.name, told.grace_period) == ("none", 3)
