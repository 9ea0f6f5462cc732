"""What is trained before any trial, in one Ray task: the dense baseline, and the trunk that trials branch off from."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

import ray

from raydistill.cluster.last_words import witnessed
from raydistill.errors import ABSENT, CheckpointError, Fault, RaydistillError, ResourceError
from raydistill.files import clear_temporaries
from raydistill.records import EpochMetrics
from raydistill.storage import Store
from raydistill.sweep.planning.resources import Share, baseline_share
from raydistill.sweep.session import Session
from raydistill.sweep.trial.checkpoint_damage import lost
from raydistill.sweep.trial.local_files import here
from raydistill.sweep.trial.trainable import left_by_its_code
from raydistill.sweep.tune.callback import LOST_MACHINE, MOST_LOSSES, why_it_died
from raydistill.tasks import Task
from raydistill.training import RunConfig, fit, read_history
from raydistill.training.branch import branch_name, keep_branch
from raydistill.training.checkpoint import FILE_NAME

_LOCK_WAIT_S = 3600.0
"""Two sweeps that want the same network: the second waits for the first to have trained it."""


def train_beforehand(
    session: Session,
    run: RunConfig,
    what: str,
    on_epoch: Callable[[EpochMetrics], None],
    keep: Collection[int] = (),
    until: int | None = None,
    share: Share | None = None,
) -> bool:
    """Train `run` to its end, again from its last checkpoint where its process dies; False if it was interrupted.

    run: its files are references into the session's store. what: for lines to the user, "the baseline". keep: numbers
    of epochs after which its network is kept for branches (see `training.branch`). until: after so many it is left.
    share: what it is given, as a trial's; None: what there is.

    Raises:
        ResourceError: its process died too often. RaydistillError: what `fit` raises.
    """
    share = share or baseline_share(session.share, session.nodes)
    failures, losses = 0, 0
    while True:
        try:
            return train_run(
                run, session.shared[0], session.store, share, on_epoch, lambda: session.interrupt.requested, what,
                keep, until,
            )  # fmt: skip
        except ResourceError as error:
            lost = LOST_MACHINE in str(error) and losses < MOST_LOSSES
            losses, failures = losses + lost, failures + (not lost)
            if failures > session.sweep.sections.max_failures:
                raise
            session.observer.warning(f"{what} starts again from its last checkpoint: {error.faults[0]}")


def train_run(
    run: RunConfig,
    task: object,
    store: Store,
    share: Share,
    on_epoch: Callable[[EpochMetrics], None],
    interrupted: Callable[[], bool],
    what: str = "the baseline",
    keep: Collection[int] = (),
    until: int | None = None,
) -> bool:
    """Train in a Ray task, the epochs streamed back; False if it was interrupted (its checkpoint stays).

    task: an object reference.

    Raises:
        ResourceError: its process died; what it trained is in its checkpoint.
        RaydistillError: what `fit` raises.
    """
    run = replace(run, threads=share.threads, device=share.device)
    train = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu, max_retries=0)(_train)
    stream = train.options(num_returns="streaming").remote(
        run, task, store, what.removeprefix("the "), tuple(keep), until
    )
    place: tuple[str, int] | None = None
    while True:
        ready, _ = ray.wait([stream], timeout=0.1, fetch_local=False)
        if interrupted():
            ray.cancel(stream, force=True)
            return False
        if not ready:
            continue
        try:
            message = ray.get(next(stream))
        except StopIteration:
            return True
        except ray.exceptions.RayError as error:
            way_out = "run the command again with --resume"
            where = what.removeprefix("the ")
            raise ResourceError(Fault(where, why_it_died(str(error), place=place), ABSENT, way_out)) from error
        if isinstance(message, RaydistillError):
            raise message
        if isinstance(message, tuple):
            place = message
        else:
            on_epoch(message)


def _train(
    run: RunConfig, task: Task, store: Store, what: str, keep: Collection[int], until: int | None = None
) -> Iterator[EpochMetrics | RaydistillError | tuple[str, int]]:
    """In the task's process: its node's address and its number, then the epochs. Errors travel as values: Ray would
    wrap them in its own and print a traceback."""
    yield ray.util.get_node_ip_address(), os.getpid()
    try:
        with witnessed(), store.workplace(str(run.out_dir), f"this {what}", _LOCK_WAIT_S, rivals=True) as place:
            clear_temporaries(place.folder)
            for reference in (f"{run.out_dir}/{branch_name(epochs)}" for epochs in keep):
                if lost(reference, store):
                    store.local(reference).unlink(missing_ok=True)
            checkpoint = place.folder / FILE_NAME
            done = epochs_done(checkpoint)
            if until is not None and done >= until:
                return
            if done in keep:
                keep_branch(checkpoint, keep)  # it was killed between the two files
                place.push()
            if not done or _passed_by(run, store, keep, done):
                checkpoint.unlink(missing_ok=True)
            for metrics in fit(replace(here(run, store), out_dir=str(place.folder)), task=task):
                if metrics.epoch + 1 in keep:
                    keep_branch(checkpoint, keep)
                place.push()
                yield metrics
                if metrics.epoch + 1 == until:
                    return
    except RaydistillError as error:
        yield error
    except SystemExit as error:
        yield left_by_its_code(error)


def _passed_by(run: RunConfig, store: Store, keep: Collection[int], done: int) -> bool:
    """Whether a network that is to be kept is lost and was before the checkpoint, which is after so many epochs: only
    from its start does a run come by there again."""
    return any(epochs < done and not store.exists(f"{run.out_dir}/{branch_name(epochs)}") for epochs in keep)


def epochs_done(checkpoint: Path) -> int:
    """0 where it is not there, or cannot be gone on from."""
    try:
        history = read_history(checkpoint)
    except CheckpointError:
        return 0
    return history[-1].epoch + 1 if history else 0
