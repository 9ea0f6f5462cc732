"""What the weights depend on, and that a run goes on only with the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from raydistill.datasets import DatasetConfig
from raydistill.errors import CheckpointError
from raydistill.training import RunConfig
from raydistill.training.checkpoint import schedule_hash
from raydistill.training.identity import check_same_run, run_identity
from tests.tasks.own import Line

CONFIG = RunConfig("mine:net", DatasetConfig("digits"), epochs=3, lr=0.1, seed=4)


def of(config: RunConfig = CONFIG, start: Any = None, **arguments: object) -> dict[str, object]:
    return run_identity(config, Line(), start, arguments)


@pytest.mark.parametrize("change", [{"lr": 0.2}, {"seed": 5}, {"batch_size": 7}, {"arch": "mine:other"}])
def test_what_makes_other_weights_is_another_run(change: dict[str, Any]) -> None:
    assert of(replace(CONFIG, **change)) != of()


@pytest.mark.parametrize("change", [{"epochs": 9}, {"out_dir": "elsewhere"}, {"threads": 3}, {"tensorboard": False}])
def test_and_what_does_not_is_the_same(change: dict[str, Any]) -> None:
    assert of(replace(CONFIG, **change)) == of()


def test_the_weights_that_it_begins_with_count() -> None:
    starts = [None, *({"model": {"w": torch.full((2,), value)}} for value in (1.0, 2.0))]
    assert len({str(of(start=start)["init"]) for start in starts}) == 3
    assert of()["init"] == "random"
    assert of(width=4)["model_args"] == {"width": 4}


def test_another_run_is_refused_with_what_differs() -> None:
    content = {"run": {**of(), "preprocessing": "its own"}, "schedule_hash": schedule_hash("a: 1")}
    check_same_run(content, "c.pt", of(), "a: 1")
    with pytest.raises(CheckpointError, match=r"c\.pt: was trained with lr 0\.1, got 0\.2; run with the same values"):
        check_same_run(content, "c.pt", of(replace(CONFIG, lr=0.2)), "a: 1")
    with pytest.raises(CheckpointError, match="was trained with schedule"):
        check_same_run(content, "c.pt", of(), "a: 2")
