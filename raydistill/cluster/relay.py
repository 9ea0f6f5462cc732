"""The actor between a run's workers and its driver: it runs Ray Train's trainer and keeps the workers' messages."""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raydistill.cluster.last_words import ended, last_words
from raydistill.cluster.team import Team
from raydistill.cluster.worker import Job, Joined, Message, Trained, train_worker
from raydistill.compression.ranks import LostWorker
from raydistill.training.checkpoint import FILE_NAME

if TYPE_CHECKING:
    from ray.actor import ActorHandle

HEARTBEAT_S = 2.0
_LOOK_S = 0.5
_ORPHANED_S = 20.0
_ABORT_S = 60.0
_DEAD = ("actor is dead", "actor died", "ActorDied", "worker died", LostWorker.__name__)


class Relay:
    """Lives as long as its driver calls it: one that has heard nothing for a while ends the run, and then itself.

    So a driver may die in any way and leave no workers behind; Ray ends what an actor has started when that ends, but
    not the place it has reserved for them.
    """

    def __init__(self, checkpoint: bytes | None) -> None:
        """checkpoint: what the run goes on from."""
        self._checkpoints: dict[int, bytes | None] = {0: checkpoint}
        self._folder = tempfile.TemporaryDirectory(prefix="raydistill-train-", ignore_cleanup_errors=True)
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._controller: ActorHandle | None = None
        self._workers: dict[int, Joined] = {}
        self._read = threading.Semaphore(0)
        self._over = threading.Event()
        self._heard = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def alive(self) -> None:
        """The driver is there."""
        self._heard = time.monotonic()

    def post(self, message: Message) -> None:
        """A worker's message. An epoch's returns when the driver is done with that epoch and its checkpoint, as the
        consumer of a generator is when it asks for the next one."""
        if isinstance(message, Trained) and FILE_NAME in message.parcel:
            latest = self.latest()
            self._checkpoints[latest + 1] = message.parcel[FILE_NAME][1]
            self._checkpoints.pop(latest - 1, None)
        if isinstance(message, Joined):
            self._workers[message.rank] = message
        self._messages.put(message)
        if isinstance(message, Trained):
            self._read.acquire()

    def latest(self) -> int:
        """The number of the last checkpoint."""
        return max(self._checkpoints)

    def checkpoint(self, number: int) -> bytes | None:
        """The last one, or the one before it: all workers of a group have to get the same. None: there is none yet."""
        return self._checkpoints[number]

    def read(self) -> None:
        """The driver is done with an epoch."""
        self._read.release()

    def take(self, wait_s: float) -> list[Message]:
        """All messages since the last call; waits for the first one."""
        self.alive()
        taken: list[Message] = []
        with contextlib.suppress(queue.Empty):
            taken.append(self._messages.get(timeout=wait_s))
            while True:
                taken.append(self._messages.get_nowait())
        return taken

    def run(self, job: Job, team: Team) -> str | None:
        """Runs the workers until they end; what ended them for good, None where they came to their end themselves."""
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(_LOOK_S))  # Train looks so often for deaths
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer

        own = ray.get_runtime_context().current_actor
        trainer = TorchTrainer(
            train_worker,
            train_loop_config={"job": job, "relay": own},
            scaling_config=ScalingConfig(
                num_workers=team.workers if team.fewest is None else (team.fewest, team.workers),
                use_gpu=team.gpu > 0,
                resources_per_worker={"CPU": team.cpu, **({"GPU": team.gpu} if team.gpu else {})},
            ),
            run_config=RunConfig(
                storage_path=self._folder.name,  # it wants one; nothing of ours goes there
                failure_config=FailureConfig(max_failures=team.max_failures),
                callbacks=_callbacks(own),
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            return _why(str(error), list(self._workers.values()))
        except RayActorError:
            return "the process that looks after them died"
        finally:
            self._folder.cleanup()
            self._over.set()
        return None

    def controlled_by(self, controller: ActorHandle) -> None:
        """The actor of Ray Train's that starts the workers."""
        self._controller = controller

    def end(self) -> None:
        """End the run, and then this actor. The caller has no need to wait."""
        with contextlib.suppress(RayError):
            if self._controller is not None and not self._over.is_set():
                ray.get(self._controller.abort.remote(), timeout=_ABORT_S)
        self._over.wait(_LOOK_S)
        self._folder.cleanup()
        os._exit(0)  # at once, and all that is left with it

    def _watch(self) -> None:
        while time.monotonic() - self._heard < _ORPHANED_S:
            time.sleep(HEARTBEAT_S)
        self.end()


def open_relay(workers: int, checkpoint: bytes | None) -> ActorHandle:
    """A relay on this driver's machine; detached, because its end has to be an orderly one."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_concurrency": workers + 6, "scheduling_strategy": here, "lifetime": "detached"}
    return ray.remote(Relay).options(**options).remote(checkpoint)


def _callbacks(relay: ActorHandle) -> list[object]:
    """Ray Train says nowhere in public which actor it runs a training by, and that one alone can end it cleanly."""
    try:
        from ray.train.v2._internal.execution.callback import ControllerCallback
    except ImportError:  # in another Ray: the run is then ended without it
        return []

    class Introduces(ControllerCallback):  # type: ignore[misc]
        def after_controller_start(self, train_run_context: object) -> None:
            relay.controlled_by.remote(ray.get_runtime_context().current_actor)

    return [Introduces()]


def _why(text: str, workers: Sequence[Joined]) -> str:
    """One line from Ray Train's account of workers that failed.

    workers: the last group. One that was only left alone by another has nothing to say; who lost it may have been
    looked at before it was.
    """
    if "low on memory" in text:
        return "out of memory: a worker's process was killed, its node ran low on memory"
    if any(word in text for word in _DEAD):
        words = [last_words(worker.address, worker.pid) for worker in workers]
        told = next((said.text for said in words if said.text), "")
        if not told and any(said.oom_killed for said in words):
            return "out of memory: a worker's process was killed by the kernel"
        return f"a worker's process {told or ended(text)}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it ended without a word"
