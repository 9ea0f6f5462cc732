"""The optimizer's section: what may stand in it, what a sweep may search, and what an older run must not know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from raydistill.parts import Optimization, Optimizer, hashed, identity, out_of_bounds, settings
from raydistill.sweep.file.faults import validate
from raydistill.sweep.file.spec import TrainingSection


def test_what_is_left_out_leaves_no_trace() -> None:
    """Runs and baselines of before there were other optimizers go on."""
    assert "optimizer" not in identity(Optimization())
    assert "optimizer" not in hashed(Optimization(), {"lr": 0.1, "optimizer": {}})
    said = identity(replace(Optimization(), optimizer=Optimizer(name="AdamW", args={"betas": (0.9, 0.98)})))
    assert said["optimizer"] == {"name": "AdamW", "args": {"betas": [0.9, 0.98]}}  # as a checkpoint gives it back


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"nam": "Adam"}, "f.yaml: optimizer.nam: unknown key; did you mean 'name'?"),
        ({"clip_norm": 0}, "f.yaml: optimizer.clip_norm: must be above 0, got 0"),
        ({"accumulate": 0}, "f.yaml: optimizer.accumulate: must be at least 1, got 0"),
        ({"ema": 1.0}, "f.yaml: optimizer.ema: must be below 1, got 1.0"),
        ({"warmup_epochs": -1}, "f.yaml: optimizer.warmup_epochs: must be at least 0, got -1"),
    ],
)
def test_a_wrong_value_is_one_line(said: dict[str, Any], line: str) -> None:
    _, faults = validate(TrainingSection, {"optimizer": said}, "f.yaml")
    assert [str(fault) for fault in faults] == [line]


def test_its_bounds_hold_in_python_too() -> None:
    wrong = Optimizer(lr=-1.0, clip_norm=0.0, accumulate=0, ema=1.5)
    assert [fault.where for fault in out_of_bounds(wrong, "")] == ["lr", "clip_norm", "accumulate", "ema"]
    assert out_of_bounds(Optimizer(), "") == []


def test_numbers_are_searched_and_lists_are_not() -> None:
    kept = {field.name: field.setting.searchable for field in settings(Optimizer)}
    assert [name for name, searchable in kept.items() if not searchable] == ["args", "no_decay", "groups"]
    with pytest.raises(TypeError):
        Optimizer("AdamW")  # type: ignore[misc]  # by its names only
