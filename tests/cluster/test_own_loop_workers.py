"""A training loop of one's own on real Ray Train workers: killed, stopped and resumed it is what one process trains."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import ray
import torch
import yaml

from raydistill.cluster.connect import connected
from raydistill.cluster.modules import named_in
from raydistill.cluster.team import Team
from raydistill.cluster.trainer import fit_on_workers
from raydistill.errors import TrainingError
from raydistill.schedule import parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import OwnLoop, RunConfig, fit, read_checkpoint
from tests.cluster.test_trainer import Watched, assert_nothing_is_left
from tests.training.own_loops import Points
from tests.training.test_own_loop import SCHEDULE

RUN = [sys.executable, "-c", "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"]
LOOPS = "tests.training.own_loops_on_ranks"


@pytest.fixture(autouse=True)
def _found_by_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # the tests' own loops and tasks


def run(folder: Path, loop: str) -> RunConfig:
    return RunConfig(
        "tests.tasks.own:net", task=TaskConfig("tests.training.own_loops:Points"), epochs=4, device="cpu", threads=1,
        train=OwnLoop(f"{LOOPS}:{loop}", {"mark": str(folder.with_name("killed"))}),
        schedule=parse_schedule(SCHEDULE, "s"), out_dir=str(folder),
    )  # fmt: skip


def assert_same(alone: RunConfig, several: RunConfig) -> None:
    left, right = (read_checkpoint(Path(str(c.out_dir)) / "checkpoint.pt") for c in (alone, several))
    for name, weight in left["model"].items():
        torch.testing.assert_close(right["model"][name], weight, atol=1e-5, rtol=0)
    for name, mask in left["scheduler"]["masks"].items():
        assert torch.equal(right["scheduler"]["masks"][name], mask), name
    assert left["own"] == right["own"] == {"seen": 4 * 128}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_with_a_worker_that_is_killed_it_is_what_one_process_trains(tmp_path: Path) -> None:
    config, alone, watched = run(tmp_path / "several", "dies_once"), run(tmp_path / "one", "shares"), Watched()
    expected = list(fit(alone))
    with connected(None, 0, named_in(asdict(config))):
        found = list(fit_on_workers(config, ray.put(Points()), Team(2), on_team=watched.on_team))
    assert watched.groups == [0, 1]  # one of them was killed in the second epoch
    assert (tmp_path / "killed").exists()
    assert [epoch.epoch for epoch in found] == [0, 1, 2, 3]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.metrics == pytest.approx(theirs.metrics, abs=1e-4)
    assert_same(alone, config)


@pytest.mark.long  # the test above has a group that goes on after a checkpoint
@pytest.mark.ray
def test_stopped_after_an_epoch_it_leaves_nothing_and_goes_on(tmp_path: Path) -> None:
    config, alone, watched = run(tmp_path / "several", "shares"), run(tmp_path / "one", "shares"), Watched()
    list(fit(alone))
    with connected(None, 0, named_in(asdict(config))):
        task = ray.put(Points())
        begun = fit_on_workers(config, task, Team(2), on_team=watched.on_team)
        assert next(begun).epoch == 0
        begun.close()
        assert_nothing_is_left(watched.workers)
        assert [epoch.epoch for epoch in fit_on_workers(config, task, Team(2))] == [1, 2, 3]
        assert_same(alone, config)
        uneven = replace(config, train=OwnLoop(f"{LOOPS}:one_batch_more"), out_dir=str(tmp_path / "uneven"))
        with pytest.raises(TrainingError, match="worker 1 exchanges more than worker 0") as caught:
            list(fit_on_workers(uneven, task, Team(2), on_team=watched.on_team))
        assert len(str(caught.value).splitlines()) == 1
        assert_nothing_is_left(watched.workers)


@pytest.mark.long  # the test above has the workers, this one the command
@pytest.mark.ray
def test_the_command_trains_a_run_file_on_workers(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    sections = {
        "version": 1, "name": "own", "model": {"arch": "tests.tasks.own:net"},
        "task": {"name": "tests.training.own_loops:Points"}, "train": f"{LOOPS}:shares", "training": {"epochs": 4},
        "schedule": SCHEDULE,
    }  # fmt: skip
    file.write_text(yaml.safe_dump(sections))
    command = [*RUN, "compress", str(file), "--num-workers", "2", "--cpu"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    kept = read_checkpoint(tmp_path / "runs" / "own" / "checkpoint.pt")
    assert [entry["epoch"] for entry in kept["history"]] == [0, 1, 2, 3]
    assert kept["own"] == {"seen": 4 * 128}
