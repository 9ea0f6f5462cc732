"""What runs in each worker of Ray Train: `fit` as one of several ranks, its first rank's figures sent to the driver.

Nothing goes through Ray Train's own reports and checkpoints: the run's ``checkpoint.pt`` is what a restarted group of
workers goes on from.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch

from raydistill.compression.ranks import LostWorker, Ranks
from raydistill.datasets import Dataset
from raydistill.errors import ABSENT, Fault, RaydistillError, StorageError
from raydistill.files import clear_temporaries
from raydistill.locks import hold
from raydistill.records import EpochMetrics
from raydistill.training import RunConfig, fit, read_history
from raydistill.training.checkpoint import FILE_NAME

ORPHAN_WAIT_S = 30.0
"""How long a trial, or a run's first worker, waits for a process of a killed driver, or of a group before, that still
trains in its folder: Ray is about to end that."""

Finish = Callable[[EpochMetrics, RunConfig, Dataset], EpochMetrics]
"""Adds to the metrics of the last epoch where the device is; a function of a module, it travels by name."""


@dataclass(frozen=True)
class Job:
    """What every worker is told. run: with an absolute out_dir that all of them share. dataset: its object reference,
    boxed: Ray would unpack a bare one. token: the name of a file in out_dir that each of them must see.

    steps: lines inside an epoch that the driver wants; 0: none.
    """

    run: RunConfig
    dataset: list[Any]
    token: str
    steps: int = 0
    finish: Finish | None = None


@dataclass(frozen=True)
class Joined:
    """A worker is there. actor: its handle. place: the placement group that holds all of its group."""

    rank: int
    world: int
    pid: int
    host: str
    actor: Any
    place: Any


@dataclass(frozen=True)
class Minibatch:
    """Where an epoch stands; loss: mean over the first worker's rows so far."""

    epoch: int
    index: int
    count: int
    loss: float


@dataclass(frozen=True)
class Failed:
    """Training cannot go on, and would not another time. error: the user's to mend; else trace tells of a defect."""

    rank: int
    error: RaydistillError | None
    trace: str = ""


@dataclass(frozen=True)
class Done:
    """All epochs are trained, everything is written."""


Message = Joined | Minibatch | EpochMetrics | Failed | Done


def train_worker(config: dict[str, Any]) -> None:
    """Ray Train's function, on every rank. config: job (a `Job`) and conduit (`conduit.Conduit`'s handle).

    Raises:
        LostWorker: another worker died; Ray Train starts all of them again.
    """
    job, conduit = config["job"], config["conduit"]
    ranks = Ranks.of_process_group()

    def post(message: Message) -> None:
        ray.get(conduit.post.remote(message))

    context = ray.get_runtime_context()
    place = ray.util.get_current_placement_group()
    post(Joined(ranks.rank, ranks.world, os.getpid(), socket.gethostname(), context.current_actor, place))
    try:
        _train(job, ranks, post)
    except LostWorker:
        raise
    except RaydistillError as error:
        post(Failed(ranks.rank, error))
    except Exception:
        post(Failed(ranks.rank, None, traceback.format_exc()))


def _train(job: Job, ranks: Ranks, post: Callable[[Message], None]) -> None:
    folder = Path(str(job.run.out_dir))
    if not (folder / job.token).exists():
        rule = f"worker {ranks.rank} on {socket.gethostname()} does not see what is in this folder"
        raise StorageError(Fault(str(folder), rule, ABSENT, "give one that all machines share (--out-dir, --storage)"))
    if not ranks.first:
        _epochs(job, ranks, None)
        return
    with hold(folder / "worker.lock", "this run", ORPHAN_WAIT_S):
        clear_temporaries(folder)
        if (folder / FILE_NAME).exists():  # an epoch may be written that the group before could not tell of
            for metrics in read_history(folder / FILE_NAME):
                post(metrics)
        _epochs(job, ranks, post)
    post(Done())


def _epochs(job: Job, ranks: Ranks, post: Callable[[Message], None] | None) -> None:
    run, dataset = replace(job.run, device=_device(job.run)), ray.get(job.dataset[0])

    def step(epoch: int, index: int, count: int, loss: float) -> None:
        if post is not None and (index + 1) % max(1, count // job.steps) == 0:
            post(Minibatch(epoch, index, count, loss))

    for metrics in fit(run, dataset=dataset, on_step=step if job.steps else None, ranks=ranks):
        if post is None:
            continue
        if job.finish is not None and metrics.epoch + 1 == run.epochs:
            metrics = job.finish(metrics, run, dataset)
        post(metrics)


def _device(run: RunConfig) -> str:
    """The GPU that Ray Train gave this worker, where the run wants one."""
    if not run.device.startswith("cuda"):
        return run.device
    from ray.train.torch import get_device

    device = get_device()
    torch.cuda.set_device(device)
    return str(device)
