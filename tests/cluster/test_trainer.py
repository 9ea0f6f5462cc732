"""Real Ray Train runs: what one process would train, whatever happens to the workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch

from raydistill.cluster.connect import connected
from raydistill.cluster.team import Team
from raydistill.cluster.trainer import fit_on_workers
from raydistill.cluster.worker import Joined
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import ConfigError, ResourceError, TrainingError
from raydistill.schedule import parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit, read_checkpoint, read_history
from tests.cluster.conftest import RayCluster, ended, skip_without_namespaces

AGP = parse_schedule(
    {
        "pruners": {
            "p": {
                "class": "AutomatedGradualPruner",
                "initial_sparsity": 0.1,
                "final_sparsity": 0.7,
                "weights": ["fc1.weight", "conv2.weight"],
            }
        },
        "policies": [{"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1}],
    },
    "s.yaml",
)


@pytest.fixture(scope="module")
def dataset():
    return load(DatasetConfig("digits"))


@pytest.fixture(scope="module")
def shared(dataset) -> Iterator[Any]:
    """One local Ray for all of these, with the images in its object store."""
    with connected(None, dataset.nbytes):
        yield ray.put(Classification(dataset))


def run_config(folder: Path) -> RunConfig:
    return RunConfig(
        arch="simplenet_cifar",
        dataset=DatasetConfig("digits"),
        epochs=4,
        batch_size=96,
        lr=0.02,
        precision="fp32",
        schedule=AGP,
        out_dir=str(folder),
        deterministic=True,
        threads=1,
        device="cpu",
        effective_train_size=0.4,
    )


@pytest.fixture(scope="module")
def one_process(dataset, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The run in one process, done."""
    config = run_config(tmp_path_factory.mktemp("runs") / "one")
    for _ in fit(config, task=Classification(dataset)):
        pass
    return config


class Watched:
    """Remembers the workers, and ends one of them in the middle of the second epoch if it is told to."""

    def __init__(self, victim: int | None = None, epoch: int = 1, by: int = signal.SIGKILL) -> None:
        self.victim, self.epoch, self.by = victim, epoch, by
        self.workers: list[Joined] = []
        self.groups: list[int] = []
        self.steps: list[tuple[int, int]] = []

    def on_team(self, workers: Sequence[Joined], before: int) -> None:
        self.workers = list(workers)
        self.groups.append(before)

    def on_step(self, epoch: int, index: int, count: int, loss: float) -> None:
        self.steps.append((epoch, index))
        if self.victim is not None and epoch == self.epoch and len(self.groups) == 1 and 0 < index < count - 1:
            os.kill(self.workers[self.victim].pid, self.by)
            self.victim = None


def assert_same(one: RunConfig, several: RunConfig) -> None:
    left, right = (read_checkpoint(Path(str(config.out_dir)) / "checkpoint.pt") for config in (one, several))
    for name, weight in left["model"].items():
        torch.testing.assert_close(right["model"][name], weight, atol=1e-5, rtol=0)
    assert left["scheduler"]["masks"].keys() == right["scheduler"]["masks"].keys() != set()
    for name, mask in left["scheduler"]["masks"].items():
        assert torch.equal(right["scheduler"]["masks"][name], mask), name
    told = [[(m["epoch"], m["metrics"]["top1"]) for m in content["history"]] for content in (left, right)]
    assert told[0] == told[1]


def assert_nothing_is_left(workers: Sequence[Joined]) -> None:
    deadline = time.monotonic() + 60  # it did not hang: no claim about speed
    cores = ray.cluster_resources()["CPU"]
    while any(psutil.pid_exists(worker.pid) for worker in workers) or ray.available_resources().get("CPU") != cores:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.ray
@pytest.mark.long  # tests/training/test_distributed.py has ranks, and one that is killed, without Ray
def test_two_workers_and_one_that_is_killed_train_what_one_process_does(
    shared: Any, one_process: RunConfig, tmp_path: Path
) -> None:
    config, watched = run_config(tmp_path / "killed"), Watched(victim=1)
    run = fit_on_workers(config, shared, Team(2), on_team=watched.on_team, on_step=watched.on_step, steps=4)
    assert [metrics.epoch for metrics in run] == [0, 1, 2, 3]
    assert watched.groups == [0, 1]  # the first group of workers, and another after the kill
    assert watched.steps.index((1, 0)) < len(watched.steps) - 1 - watched.steps[::-1].index((1, 0))  # epoch 1 twice
    assert_same(one_process, config)
    assert list((tmp_path / "killed").glob("events.out.tfevents.*"))
    left = {path.name for path in (tmp_path / "killed").iterdir() if not path.name.startswith("events")}
    assert left == {"checkpoint.pt", "sparsity.csv", "schedule.yaml", "steps"}
    assert_nothing_is_left(watched.workers)


@pytest.mark.long  # test_team has the words without workers, the test above a death that is not too many
@pytest.mark.ray
def test_a_death_too_many_is_one_line_and_closing_leaves_nothing(shared: Any, tmp_path: Path) -> None:
    config, watched = run_config(tmp_path / "run"), Watched(victim=0, by=signal.SIGABRT)
    team = Team(2, max_failures=0)
    run = fit_on_workers(config, shared, team, on_team=watched.on_team, on_step=watched.on_step, steps=4)
    assert next(run).epoch == 0
    with pytest.raises(
        ResourceError, match=r"^workers: a worker's process crashed \(Aborted\); .*; run the same command again"
    ):
        next(run)
    assert_nothing_is_left(watched.workers)
    assert read_checkpoint(tmp_path / "run" / "checkpoint.pt")["epoch"] == 0
    again = fit_on_workers(config, shared, team, on_team=watched.on_team)
    assert next(again).epoch == 1
    again.close()
    assert_nothing_is_left(watched.workers)
    assert read_checkpoint(tmp_path / "run" / "checkpoint.pt")["epoch"] == 1  # it waits for whoever iterates


@pytest.mark.long  # tests/sweep/test_run.py has one in a trial, test_worker what a worker says on its way here
@pytest.mark.ray
def test_a_loss_that_is_not_finite_is_one_line(shared: Any, tmp_path: Path) -> None:
    config = replace(run_config(tmp_path / "nan"), lr=1e12, schedule=None)
    with pytest.raises(TrainingError, match=r"epoch 0: the training loss \(minibatch \d\) must be finite.*lower lr"):
        list(fit_on_workers(config, shared, Team(2, max_failures=3)))


@pytest.mark.cluster
@pytest.mark.ray
@pytest.mark.slow
def test_four_workers_and_as_many_as_there_is_room_for(shared: Any, one_process: RunConfig, tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    four, watched = run_config(tmp_path / "four"), Watched()
    list(fit_on_workers(four, shared, Team(4, cpu=cores / 4), on_team=watched.on_team))
    assert len(watched.workers) == 4
    assert_same(one_process, four)
    one = run_config(tmp_path / "one")
    list(fit_on_workers(one, shared, Team(1)))
    assert_same(one_process, one)
    some = run_config(tmp_path / "some")
    list(fit_on_workers(some, shared, Team(4 * cores, cpu=cores / 2, fewest=1), on_team=watched.on_team))
    assert len(watched.workers) == 2
    assert_same(one_process, some)


@pytest.mark.cluster
@pytest.mark.ray
@pytest.mark.slow
def test_workers_do_not_see_the_run_s_folder(
    cluster: RayCluster, raydistill: Callable[..., Any], tmp_path: Path
) -> None:
    """Nor the checkpoint that it begins with; both are on the driver's disk only."""
    skip_without_namespaces()
    common = ("--arch", "simplenet_cifar", "--dataset", "digits", "--no-mlflow", "-b", "128", "--precision", "fp32")
    ended(raydistill("compress", *common, "--epochs", "1", "--name", "dense"))
    cluster.head("--num-cpus=0")
    cluster.node("--num-cpus=2", before=f"mount -t tmpfs tmpfs {tmp_path}")
    start = ("--resume-from", tmp_path / "runs" / "dense" / "checkpoint.pt", "--reset-optimizer")
    workers = ("--num-workers", "2", "--address", cluster.address)
    command = ("compress", *common, *start, *workers, "--name", "run", "--epochs")
    out, err = ended(raydistill(*command, "1"))
    assert err == ""
    assert "2 workers" in out
    assert read_checkpoint(tmp_path / "runs" / "run" / "checkpoint.pt")["epoch"] == 0
    ended(raydistill(*command, "2"))
    assert [m.epoch for m in read_history(tmp_path / "runs" / "run" / "checkpoint.pt")] == [0, 1]
    _, err = ended(raydistill(*command, "3", "--lr", "0.5"), code=2)  # a worker's error, of a path of the driver's
    assert err.startswith(f"error: {tmp_path}/runs/run/checkpoint.pt: was trained with lr ")
    assert err.count("\n") == 1


def test_a_run_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match="out_dir: is missing"):
        next(fit_on_workers(replace(run_config(Path("x")), out_dir=None), None, Team(2)))
