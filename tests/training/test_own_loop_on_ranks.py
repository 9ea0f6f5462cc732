"""A training loop of one's own on several ranks learns what it learns in one process, and never waits for nobody."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.compression.ranks import Ranks
from raydistill.datasets import DatasetConfig
from raydistill.errors import ConfigError, TrainingError
from raydistill.records import EpochMetrics
from raydistill.schedule import parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import OwnLoop, RunConfig, fit, read_checkpoint
from tests.training import own_loops_on_ranks
from tests.training.crew import Crew, crew
from tests.training.test_own_loop import SCHEDULE

LOOPS = own_loops_on_ranks.__name__
PLATEAU = {
    **SCHEDULE,
    "lr_schedulers": {"lr": {"class": "ReduceLROnPlateau", "patience": 0, "factor": 0.1, "threshold": 0.9}},
    "policies": [
        *SCHEDULE["policies"],
        {"lr_scheduler": {"instance_name": "lr"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1},
    ],
}


@pytest.fixture(scope="module")
def ranks() -> Iterator[Crew]:
    with crew(2) as processes:
        yield processes


def run(folder: Path, loop: str = "shares", schedule: Any = PLATEAU, **args: Any) -> RunConfig:
    return RunConfig(
        "tests.tasks.own:net", task=TaskConfig("tests.training.own_loops:Points"), epochs=4, device="cpu", threads=1,
        train=OwnLoop(f"{LOOPS}:{loop}", args), schedule=parse_schedule(schedule, "s"), deterministic=True,
        out_dir=str(folder),
    )  # fmt: skip


def trained(ranks: Ranks, config: RunConfig, epochs: int | None = None) -> list[EpochMetrics]:
    return list(itertools.islice(fit(config, ranks=ranks), epochs))


def assert_same(one: Path, other: Path, **tolerance: float) -> None:
    left, right = (read_checkpoint(folder / "checkpoint.pt") for folder in (one, other))
    for name, weight in left["model"].items():
        torch.testing.assert_close(right["model"][name], weight, **(tolerance or {"atol": 1e-5, "rtol": 0}))
    for name, mask in left["scheduler"]["masks"].items():
        assert torch.equal(right["scheduler"]["masks"][name], mask), name
    assert left["own"] == right["own"]


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["shares", "first_judges", "with_torchs_own"])
def test_it_learns_what_one_process_does(ranks: Crew, loop: str, tmp_path: Path) -> None:
    expected = list(fit(run(tmp_path / "one", loop)))
    for found in ranks.run(trained, run(tmp_path / "two", loop), world=2):
        assert [epoch.metrics for epoch in found] == [pytest.approx(epoch.metrics, abs=1e-4) for epoch in expected]
        assert [epoch.learning_rate for epoch in found] == [epoch.learning_rate for epoch in expected]
    assert_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_one_that_is_cut_off_goes_on_bit_for_bit(ranks: Crew, tmp_path: Path) -> None:
    """The order that is drawn after an epoch is the first worker's on both, as it is after a resume."""
    ranks.run(trained, run(tmp_path / "whole"), world=2)
    for _ in range(4):
        (last,), _ = ranks.run(trained, run(tmp_path / "parts"), 1, world=2)
    assert last.epoch == 3
    assert_same(tmp_path / "whole", tmp_path / "parts", atol=0, rtol=0)


@pytest.mark.slow
def test_the_mean_counts_and_decides_where_workers_say_different_numbers(ranks: Crew, tmp_path: Path) -> None:
    first, second = ranks.run(trained, run(tmp_path, "each_judges_otherwise"), world=2)
    plain, _ = ranks.run(trained, run(tmp_path / "plain"), world=2)
    assert [epoch.metrics for epoch in first] == [epoch.metrics for epoch in second]
    assert first[0].metrics["mae"] == pytest.approx(plain[0].metrics["mae"] + 0.5)
    assert [epoch.learning_rate for epoch in first] == [epoch.learning_rate for epoch in second]


@pytest.mark.slow
def test_the_tasks_own_feeds_teach_it_what_the_engine_learns(ranks: Crew, tmp_path: Path) -> None:
    engine = RunConfig(
        "simplenet_cifar", DatasetConfig("digits"), epochs=2, batch_size=96, lr=0.01,
        precision="fp32", device="cpu", threads=1, deterministic=True, effective_train_size=0.3, tensorboard=False,
        out_dir=str(tmp_path / "engine"),
    )  # fmt: skip
    own = replace(engine, train=OwnLoop(f"{LOOPS}:with_the_tasks_feeds"), out_dir=str(tmp_path / "own"))
    theirs = list(fit(engine))
    for found in ranks.run(trained, own, world=2):
        assert [epoch.metrics["loss"] for epoch in found] == pytest.approx(
            [epoch.metrics["loss"] for epoch in theirs], abs=1e-4
        )


def test_one_that_reports_is_for_one_process(tmp_path: Path) -> None:
    from raydistill.training.own_loop import loop_of

    config = replace(run(tmp_path), train=OwnLoop("tests.training.own_loops:report"))
    loop_of(config)
    with pytest.raises(ConfigError, match=r"must be a generator to train on several workers: .*, got 'tests.training"):
        loop_of(config, several=True)


@pytest.mark.slow
def test_in_one_process_it_is_worker_0_of_1(tmp_path: Path) -> None:
    epochs = list(fit(run(tmp_path)))
    assert epochs[-1].metrics["mae"] < epochs[0].metrics["mae"]
    with pytest.raises(TrainingError, match="yields no metrics, got 'NoneType'"):
        list(fit(replace(run(tmp_path / "none", "first_judges"), train=OwnLoop(f"{LOOPS}:nobody_judges"))))
