"""The sections by themselves: what goes together, what does not, and what is short for what."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from raydistill.parts import Optimizer
from raydistill.sweep.file.faults import validate
from raydistill.sweep.file.spec import (
    BaselineSection,
    SearcherSection,
    TaskSection,
    TrainingSection,
    TrainSection,
    TrialSchedulerSection,
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
