"""What runs in each worker of Ray Train: `fit` as one of several ranks, its first rank's epochs sent to the driver.

Nothing goes through Ray Train's own reports and checkpoints: the run's ``checkpoint.pt``, sent with each epoch, is what
a restarted group of workers goes on from.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import ray
import torch

from raydistill.cluster.last_words import witnessed
from raydistill.cluster.parcels import Outbox, Parcel, private_folder
from raydistill.compression.ranks import LostWorker, Ranks
from raydistill.datasets import Dataset
from raydistill.errors import Fault, RaydistillError
from raydistill.files import write_atomically
from raydistill.records import EpochMetrics
from raydistill.training import RunConfig, fit
from raydistill.training.checkpoint import FILE_NAME

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.util.placement_group import PlacementGroup

Finish = Callable[[EpochMetrics, RunConfig, Dataset], EpochMetrics]
"""Adds to the metrics of the last epoch where the device is; a function of a module, it travels by name."""


@dataclass(frozen=True)
class Job:
    """What every worker is told. run: its paths are the driver's. task: its object reference, boxed: Ray would
    unpack a bare one. given: the content of the files that the run begins with, by the path that `run` names them by,
    boxed as well.

    steps: lines inside an epoch that the driver wants; 0: none.
    """

    run: RunConfig
    task: list[ray.ObjectRef]
    given: Mapping[str, list[ray.ObjectRef]]
    steps: int = 0
    finish: Finish | None = None


@dataclass(frozen=True)
class Joined:
    """A worker is there. host, address: its machine's name, and its node's address as Ray has it. actor: its handle.
    place: the placement group that holds all of its group. folder: its own."""

    rank: int
    world: int
    pid: int
    host: str
    address: str
    actor: ActorHandle
    place: PlacementGroup | None
    folder: str


@dataclass(frozen=True)
class Minibatch:
    """Where an epoch stands; loss: mean over the first worker's rows so far."""

    epoch: int
    index: int
    count: int
    loss: float


@dataclass(frozen=True)
class Trained:
    """An epoch is. parcel: what it has changed in the run's folder."""

    metrics: EpochMetrics
    parcel: Parcel


@dataclass(frozen=True)
class Failed:
    """Training cannot go on, and would not another time. error: the user's to mend; else trace tells of a defect."""

    rank: int
    error: RaydistillError | None
    trace: str = ""


@dataclass(frozen=True)
class Done:
    """All epochs are trained. parcel: what has changed since the last one."""

    parcel: Parcel


Message = Joined | Minibatch | Trained | Failed | Done


class WorkerConfig(TypedDict):
    """What Ray Train hands to each worker. relay: `relay.Relay`'s handle."""

    job: Job
    relay: ActorHandle


def train_worker(config: WorkerConfig) -> None:
    """Ray Train's function, on every rank.

    Raises:
        LostWorker: another worker died; Ray Train starts all of them again.
    """
    job, relay = config["job"], config["relay"]
    ranks = Ranks.of_process_group()

    def post(message: Message) -> None:
        ray.get(relay.post.remote(message))

    context = ray.get_runtime_context()
    place = ray.util.get_current_placement_group()
    try:
        with private_folder() as folder, witnessed():
            here = (os.getpid(), socket.gethostname(), ray.util.get_node_ip_address())
            post(Joined(ranks.rank, ranks.world, *here, context.current_actor, place, str(folder)))
            _train(job, ranks, relay, folder, post)
    except LostWorker:
        raise
    except RaydistillError as error:
        post(Failed(ranks.rank, error))
    except Exception:
        post(Failed(ranks.rank, None, traceback.format_exc()))


def _train(job: Job, ranks: Ranks, relay: ActorHandle, folder: Path, post: Callable[[Message], None]) -> None:
    given = {path: str(folder / "given" / str(number) / Path(path).name) for number, path in enumerate(job.given)}
    for path, box in job.given.items():
        write_atomically(given[path], ray.get(box[0]))
    number = ranks.of_first(ray.get(relay.latest.remote()) if ranks.first else 0)
    checkpoint = ray.get(relay.checkpoint.remote(number))
    if checkpoint is not None:
        write_atomically(folder / FILE_NAME, checkpoint)
    names = {here: path for path, here in given.items()} | {str(folder): str(job.run.out_dir)}
    try:
        _epochs(job, job.run.moved(str(folder), given), ranks, folder, post)
    except LostWorker:
        raise
    except RaydistillError as error:
        raise type(error)(*(_said_of(fault, names) for fault in error.faults)) from error


def _epochs(job: Job, run: RunConfig, ranks: Ranks, folder: Path, post: Callable[[Message], None]) -> None:
    run, task = replace(run, device=_device(run)), ray.get(job.task[0])
    outbox = Outbox(folder)

    def step(epoch: int, index: int, count: int, loss: float) -> None:
        if (index + 1) % max(1, count // job.steps) == 0:
            post(Minibatch(epoch, index, count, loss))

    for metrics in fit(run, task=task, on_step=step if job.steps else None, ranks=ranks):
        if not ranks.first:
            continue
        if job.finish is not None and metrics.epoch + 1 == run.epochs:
            metrics = job.finish(metrics, run, task)
        post(Trained(metrics, outbox.changed()))
    if ranks.first:
        post(Done(outbox.changed()))


def _said_of(fault: Fault | str, names: Mapping[str, str]) -> Fault | str:
    """A fault of this worker's paths, as one of the driver's. names: the driver's by this worker's."""

    def said(text: str) -> str:
        for here, there in names.items():
            text = text.replace(here, there)
        return text

    if isinstance(fault, str):
        return said(fault)
    value = said(fault.value) if isinstance(fault.value, str) else fault.value
    return Fault(said(fault.where), said(fault.rule), value, said(fault.way_out))


def _device(run: RunConfig) -> str:
    """The GPU that Ray Train gave this worker, where the run wants one."""
    if not run.device.startswith("cuda"):
        return run.device
    from ray.train.torch import get_device

    device = get_device()
    torch.cuda.set_device(device)
    return str(device)
