"""What a resumed sweep may say otherwise, and what it may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raydistill.errors import ConfigError
from raydistill.records import RUNNING, TrialRecord
from raydistill.sweep.file.load import Overrides, load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.record.journal import FORMAT, History
from raydistill.sweep.record.resume import check_same, check_start, differences
from raydistill.tasks.classification import ImageShape
from tests.sweep.conftest import SWEEP

CIFAR = ImageShape(10, (3, 32, 32))

WriteSweep = Callable[..., Path]
DATASET = {"name": "digits", "fingerprint": "ab12"}


def history_of(file: Path) -> History:
    sweep = load_sweep(file)
    trial = plan_sweep(sweep, CIFAR).trials[0]
    started = {"format": FORMAT, "sweep_id": "s", "config": sweep.config(), "dataset": DATASET}
    record = TrialRecord("t0000", dict(trial.values), RUNNING, "simplenet_cifar", "digits", 0)
    return History(start=started, records={"t0000": record})


def resume(file: Path, history: History, dataset: dict[str, str] = DATASET, **options: Any) -> None:
    sweep = load_sweep(file, Overrides(**options))
    check_same(file, history, sweep.config(), dataset, plan_sweep(sweep, CIFAR))


@pytest.mark.parametrize(
    "change",
    [
        ("num_samples", 9),
        ("tracking", {"uri": "http://there:5000"}),
        ("resources_per_trial", {"cpu": 2}),
        ("max_failures", 4),
        ("dataset/workers", 0),
        ("constraints", ["sparsity >= 0.5"]),
        ("constraints", ["sparsity >= 0.9", "top1_drop <= 0.01"]),
        ("constraints", []),
    ],
)
def test_what_may_change(write_sweep: WriteSweep, change: tuple[str, Any]) -> None:
    history = history_of(write_sweep(("constraints", ["sparsity >= 0.9"])))
    resume(write_sweep(change), history)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ("training/lr", 0.5),
            "training.lr: must be as the sweep was started (0.02), got 0.5; change it back, or start",
        ),
        (
            ("schedule/policies", [{**SWEEP["schedule"]["policies"][0], "ending_epoch": 2}]),
            "schedule.policies[0].ending_epoch: must be as",
        ),
        (("seed", 4), "seed: must be as the sweep was started (0), got 4"),
        (("num_samples", 1), "num_samples: may grow on --resume, not shrink (it was 3), got 1"),
        (("schedule/pruners/agp/final_sparsity", 0.6), "schedule.pruners.agp.final_sparsity: must be as"),
        (("search/training.lr", {"choice": [0.1]}), "search.training.lr.loguniform: must be as the sweep was started"),
        (("trial_scheduler", {"name": "asha"}), "trial_scheduler.name: must be as the sweep was started ('none')"),
    ],
)
def test_what_may_not_change_is_named(write_sweep: WriteSweep, change: tuple[str, Any], expected: str) -> None:
    history = history_of(write_sweep())
    with pytest.raises(ConfigError) as caught:
        resume(write_sweep(change), history)
    assert f"space.yaml: {expected}" in str(caught.value)


@pytest.mark.slow
def test_other_images(write_sweep: WriteSweep) -> None:
    file = write_sweep()
    with pytest.raises(ConfigError, match=r"started with \(digits, ab12\), got 'cifar10, ff00'"):
        resume(file, history_of(file), {"name": "cifar10", "fingerprint": "ff00"})


@pytest.mark.slow
def test_values_drawn_otherwise(write_sweep: WriteSweep) -> None:
    file = write_sweep()
    history = history_of(file)
    history.records["t0000"] = TrialRecord("t0000", {"training.lr": 0.123}, RUNNING, "simplenet_cifar", "digits", 0)
    with pytest.raises(ConfigError, match="trial t0000: was drawn by another version"):
        resume(file, history)


def test_starting_where_a_sweep_is_and_resuming_where_none_is(write_sweep: WriteSweep) -> None:
    history = history_of(write_sweep())
    check_start(Path("/s/tiny"), History(), resume=False)
    check_start(Path("/s/tiny"), history, resume=True)
    with pytest.raises(ConfigError, match=r"/s/tiny: holds a sweep already; add --resume .* --name NAME"):
        check_start(Path("/s/tiny"), history, resume=False)
    with pytest.raises(ConfigError, match="there is no sweep in /s/tiny"):
        check_start(Path("/s/tiny"), History(), resume=True)


def test_differences_by_key_path() -> None:
    old = {"a": {"b": 1, "c": [1, {"d": 2}]}, "e": 5}
    new = {"a": {"b": 1, "c": [1, {"d": 3}]}, "f": 6}
    assert sorted(differences(old, new)) == [("a.c[1].d", 2, 3), ("e", 5, None), ("f", None, 6)]
