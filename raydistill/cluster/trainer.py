"""One training run on several workers, through Ray Train: `fit_on_workers` is `fit` for a cluster."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayError
from ray.util import remove_placement_group

from raydistill.cluster.parcels import unpack
from raydistill.cluster.relay import HEARTBEAT_S, open_relay
from raydistill.cluster.team import Team
from raydistill.cluster.worker import Done, Failed, Finish, Job, Joined, Message, Minibatch, Trained
from raydistill.errors import ABSENT, ConfigError, Fault, ResourceError
from raydistill.files import unreadable, unwritable
from raydistill.records import EpochMetrics
from raydistill.training import RunConfig, read_history
from raydistill.training.checkpoint import FILE_NAME
from raydistill.training.loop import OnStep

if TYPE_CHECKING:
    from ray.actor import ActorHandle

_POLL_S = 0.5
_PATIENCE_S = 120.0
_END_S = 5.0


OnTeam = Callable[[Sequence[Joined], int], None]
"""Called whenever a group of workers is complete, with the workers and the number of groups before it."""


def fit_on_workers(
    run: RunConfig,
    task: ray.ObjectRef,
    team: Team,
    *,
    on_step: OnStep | None = None,
    steps: int = 0,
    on_team: OnTeam | None = None,
    on_wait: Callable[[], None] | None = None,
    finish: Finish | None = None,
) -> Generator[EpochMetrics, None, None]:
    """`fit` on the workers of a team: the same metrics, the same files in ``run.out_dir``, to rounding the same
    weights. Ray must be connected. Only this process sees ``out_dir`` and the checkpoints that the run begins with.

    task: a reference to it in the object store. steps: how often on_step is called in an epoch. on_wait: called once
    if the workers do not come for a while: the cluster may be busy. finish: adds to the last epoch's metrics, in the
    first worker.

    A worker that dies ends all of them; they are started again from the last checkpoint, `max_failures` times. Closing
    the generator ends the workers at once; the same call goes on after their last checkpoint.

    Raises:
        ResourceError: the workers died too often, or could not be started.
        RaydistillError: what `fit` raises, on whichever worker.
        RuntimeError: a defect, with the traceback of the worker that met it.
    """
    if run.out_dir is None:
        raise ConfigError(Fault("out_dir", "is missing", ABSENT, "workers that start again go on from what is there"))
    folder = Path(run.out_dir).resolve()
    told, checkpoint = _begun(folder, run.resume)
    given = {path: [ray.put(_content(path))] for path in run.given}
    run = replace(run, out_dir=str(folder), threads=team.threads, device=team.device, resume=True)
    relay = open_relay(team.workers, checkpoint)
    crew = _Crew(relay, on_team)
    try:
        ended = relay.run.remote(Job(run, [task], given, steps, finish), team)
        for message in _messages(relay, ended, on_wait):
            if isinstance(message, Trained):
                unpack(message.parcel, folder)
                if message.metrics.epoch > told:
                    told = message.metrics.epoch
                    yield replace(message.metrics, checkpoint=str(folder / FILE_NAME))
                relay.read.remote()
            elif isinstance(message, Joined):
                crew.join(message)
            elif isinstance(message, Minibatch) and on_step is not None:
                on_step(message.epoch, message.index, message.count, message.loss)
            elif isinstance(message, Failed):
                if message.error is not None:
                    raise message.error
                last = message.trace.strip().rpartition("\n")[2]
                raise RuntimeError(f"{last} (worker {message.rank})\n{message.trace}")
            elif isinstance(message, Done):
                unpack(message.parcel, folder)
                ray.wait([ended], timeout=_END_S)
                return
    finally:
        crew.end()


def _messages(relay: ActorHandle, ended: ray.ObjectRef, on_wait: Callable[[], None] | None) -> Iterator[Message]:
    """The workers' messages until the trainer ends.

    Raises:
        ResourceError: it ended because its workers died, or could not be started.
    """
    way_out = "run the same command again, it goes on after the last checkpoint; lower batch_size if memory ran out"
    quiet, heard = 0.0, False
    try:
        while True:
            over = bool(ray.wait([ended], timeout=0)[0])
            messages = ray.get(relay.take.remote(0.0 if over else _POLL_S))
            heard = heard or bool(messages)
            quiet += _POLL_S
            if quiet >= _PATIENCE_S and not heard and on_wait is not None:
                on_wait()
                on_wait = None
            yield from messages
            if over and not messages:
                break
        reason = ray.get(ended)
    except RayError as error:
        reason = f"the process that started them died ({str(error).strip().splitlines()[0][:200]})"
    raise ResourceError(Fault("workers", reason or "ended before their last epoch", ABSENT, way_out))


class _Crew:
    """The workers that are there, and the places that Ray has reserved for them."""

    def __init__(self, relay: ActorHandle, on_team: OnTeam | None) -> None:
        self._relay, self._on_team = relay, on_team
        self._present: dict[int, Joined] = {}
        self._all: list[Joined] = []
        self._groups = 0
        self._ended = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def join(self, worker: Joined) -> None:
        if worker.rank in self._present:  # of a group that was started anew
            self._present.clear()
        self._present[worker.rank] = worker
        self._all.append(worker)
        if len(self._present) == worker.world:
            if self._on_team is not None:
                self._on_team([self._present[rank] for rank in sorted(self._present)], self._groups)
            self._groups += 1

    def end(self) -> None:
        """End all processes of the run, and wait until they are gone: what comes next may write to the same folder."""
        self._ended.set()
        with contextlib.suppress(RayError):
            self._relay.end.remote()  # which may take it some seconds; nobody has to wait for that
        for worker in self._all:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(worker.actor)
        for worker in self._all:
            with contextlib.suppress(RayError):  # it is gone
                ray.get(worker.actor.__ray_ready__.remote(), timeout=_END_S)
            if worker.host == socket.gethostname():
                shutil.rmtree(worker.folder, ignore_errors=True)
            if worker.place is not None:
                with contextlib.suppress(RayError):
                    remove_placement_group(worker.place)

    def _beat(self) -> None:
        with contextlib.suppress(RayError):
            while not self._ended.wait(HEARTBEAT_S):
                self._relay.alive.remote()


def _begun(folder: Path, resume: bool) -> tuple[int, bytes | None]:
    """(the last epoch that is trained already, -1 if none is; the checkpoint to go on from)."""
    path = folder / FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not resume:
            path.unlink(missing_ok=True)
        if not path.exists():
            return -1, None
    except OSError as error:
        raise unwritable(folder, error) from error
    history = read_history(path)
    return history[-1].epoch if history else -1, _content(str(path))


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
