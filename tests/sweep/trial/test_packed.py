"""A process of several trials, without the sweep: what it is given, and what it tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from raydistill.datasets import DatasetConfig, load
from raydistill.schedule import parse_schedule
from raydistill.storage import Folder
from raydistill.sweep.planning.plan import TrialPlan
from raydistill.sweep.trial.packed import EpochOfAll, PackedLeg, PackedTrials
from raydistill.sweep.trial.trainable import ANEW, EPOCH, FAILURE
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, read_history

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def shared() -> Iterator[list[Any]]:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, address="local")
    yield [ray.put(Classification(load(DatasetConfig("digits"))))]
    ray.shutdown()


@pytest.fixture
def trials(shared: list[Any], tmp_path: Path) -> PackedTrials:
    return PackedTrials(shared, Folder(tmp_path), False, ())


def leg(folder: Path, name: str, known: int = 0, until: int | None = None, **said: Any) -> PackedLeg:
    run = RunConfig(
        "tests.training.packing.nets:single", DatasetConfig("digits"), epochs=2, batch_size=64, threads=1, device="cpu",
        precision="fp32", out_dir=str(folder / "trials" / name), effective_train_size=0.1, tensorboard=False, **said,
    )  # fmt: skip
    return PackedLeg(TrialPlan(name, {}, run, 0.0), known, until)


def told(found: EpochOfAll) -> list[tuple[str, Any]]:
    """Each report in short: a trial and the number of an epoch, or what it says otherwise."""
    short: list[tuple[str, Any]] = []
    for trial_id, report in found.reports:
        if EPOCH in report:
            short.append((trial_id, json.loads(report[EPOCH])["epoch"]))
        else:
            short += [(trial_id, f"{key}: {text}") for key, text in report.items()]
    return short


def test_legs_begin_end_pause_and_go_on(trials: PackedTrials, tmp_path: Path) -> None:
    first = trials.epoch([leg(tmp_path, "t0", lr=0.01), leg(tmp_path, "t1", until=1), leg(tmp_path, "t2")], [])
    assert sorted(told(first)) == [("t0", 0), ("t1", 0), ("t2", 0)]
    assert first.ended == ("t1",)
    second = trials.epoch([leg(tmp_path, "t1", known=1)], ["t2"])
    assert sorted(told(second)) == [("t0", 1), ("t1", 1)]
    assert sorted(second.ended) == ["t0", "t1"]
    last = json.loads(dict(second.reports)["t0"][EPOCH])
    assert last["footprint"]["macs"] > 0
    assert last["checkpoint"] == f"{tmp_path}/trials/t0/checkpoint.pt"
    assert [metrics.epoch for metrics in read_history(tmp_path / "trials" / "t2" / "checkpoint.pt")] == [0]
    again = trials.epoch([leg(tmp_path, "t0", known=1)], [])  # the driver died between its checkpoint and its report
    assert told(again) == [("t0", 1)]
    assert again.ended == ("t0",)


def test_a_fork_tells_of_the_epochs_in_common_and_trains_the_others(trials: PackedTrials, tmp_path: Path) -> None:
    trials.epoch([leg(tmp_path, "start", until=1)], [])
    common = tmp_path / "trials" / "start" / "checkpoint.pt"
    forked = leg(tmp_path, "t0")
    forked = replace(forked, plan=replace(forked.plan, fork=str(common)))
    whole = leg(tmp_path, "t1")
    first = trials.epoch([forked, whole], [])
    assert sorted(told(first)) == [("t0", 0), ("t0", 1), ("t1", 0)]
    assert first.ended == ("t0",)
    assert told(trials.epoch([], [])) == [("t1", 1)]
    ends = [read_history(tmp_path / "trials" / name / "checkpoint.pt")[-1].metrics for name in ("t0", "t1")]
    assert ends[0]["loss"] == pytest.approx(ends[1]["loss"], rel=1e-4)


def test_what_goes_wrong_in_one_is_told_of_that_one(trials: PackedTrials, tmp_path: Path) -> None:
    defect = parse_schedule(
        {
            "extensions": {"b": {"class": "tests.sweep.own_packed:Broken"}},
            "policies": [{"extension": {"instance_name": "b"}, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1}],
        },
        "s.yaml",
    )
    damaged = tmp_path / "trials" / "t3" / "checkpoint.pt"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"PK nothing")
    found = trials.epoch(
        [
            leg(tmp_path, "t0"), leg(tmp_path, "t1", schedule=defect), leg(tmp_path, "t2", lr=1e30),
            leg(tmp_path, "t3", lr=0.02),
        ],
        [],
    )  # fmt: skip
    by_trial = dict(told(found))
    assert by_trial["t0"] == 0
    assert by_trial["t1"].startswith(
        f"{FAILURE}: ValueError: a defect of the user's (traceback in {tmp_path}/trials/t1"
    )
    assert "in on_epoch_begin" in (tmp_path / "trials" / "t1" / "error.txt").read_text()
    assert "must be finite" in by_trial["t2"]
    assert told(found)[0][1].startswith(f"{ANEW}: its checkpoint is damaged")
    assert by_trial["t3"] == 0
    assert sorted(found.ended) == ["t1", "t2"]
