"""What runs in a trial's process: `fit`, its epochs reported to Ray Tune."""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from raydistill.cluster.last_words import witnessed
from raydistill.cluster.team import Team
from raydistill.cluster.tune_bridge import trial_epochs
from raydistill.errors import ABSENT, Fault, RaydistillError, ResourceError, StorageError, TrainingError
from raydistill.files import full_disk, unwritable, write_atomically
from raydistill.masking import masked
from raydistill.records import EpochMetrics
from raydistill.storage import Store
from raydistill.sweep.trial.checkpoint_damage import history_or_damage, is_of
from raydistill.sweep.trial.fork import fork
from raydistill.sweep.trial.local_files import here
from raydistill.sweep.trial.orphans import patience_s
from raydistill.tasks import Task
from raydistill.training import RunConfig, fit
from raydistill.training.checkpoint import FILE_NAME
from raydistill.training.footprint import footprint

EPOCH = "epoch_metrics"
FAILURE = "failure"
"""Key of a report that ends its trial: training cannot go on, for the reason given."""

ANEW = "anew"
"""Key of a report that says why a trial begins at its first epoch again."""

FATAL = "fatal"
"""Key of a report that ends the whole sweep: what every other trial would meet too, such as a full disk."""

TRACEBACK = "error.txt"

RETRIED = "retried"
"""Key of a report that a trial's workers have started again, for the reason given."""


def train_trial(
    config: Mapping[str, Any],
    *,
    shared: list[Any],
    store: Store,
    latency: bool = False,
    team: Team | None = None,
    own: Sequence[str] = (),
) -> None:
    """Tune's function trainable: one leg of a trial (see `search_driver.Leg`).

    config: trial_id, plan (a `TrialPlan`, `Lazy`), known and until. shared: the task's boxed reference; its arrays
    are read in place, not copied. store: what the plan's references lead into. latency: whether the trained network's
    latency is wanted. team: the workers to train on; None: this process. own: figures of the network that are the
    user's.

    A user's mistake, a diverged loss or a defect ends this trial with a reason; only the death of the process is left
    to Tune, which starts the trial again from its checkpoint.
    """
    plan = config["plan"].content
    run = plan.run
    kept = str(run.out_dir)
    try:
        task = ray.get(shared[0])
        run = here(run, store)
        # tune.report raises SystemExit when the trial is to stop: closing ends fit's run and puts torch's settings back
        finish = partial(with_figures, latency=latency, own=own)
        if team is None:
            training = _told(fit(run, task=task))
        else:
            training = trial_epochs(run, shared[0], team, finish, _retried)
        with (
            witnessed(),
            store.workplace(kept, "this trial", patience_s(store.local(kept))) as place,
            _traced(place.folder),
            contextlib.closing(_epochs(run, training)) as epochs,
        ):
            os.chdir(place.folder)
            fork(plan, store, place.folder)
            for metrics in epochs:
                if not place.ours:
                    return  # this machine was cut off, and the trial goes on elsewhere
                if metrics.epoch + 1 == run.epochs and not metrics.footprint:
                    metrics = finish(metrics, run, task)
                place.push()
                if metrics.epoch >= config["known"]:
                    tune.report(report_of(replace(metrics, checkpoint=f"{kept}/{FILE_NAME}")))
                if metrics.epoch + 1 == config["until"]:
                    break  # it pauses by ending: what waits in a report would hold on to the worker
    except Exception as error:
        tune.report(failure(error, kept, store))


def failure(error: BaseException, kept: str, store: Store) -> dict[str, Any]:
    """The report of what ended a trial, or the whole sweep. kept: the trial's folder, a reference."""
    if isinstance(error, SystemExit):
        error = left_by_its_code(error)
    if isinstance(error, RaydistillError):
        if isinstance(error, TrainingError | ResourceError) or is_of(error, store.local(kept) / FILE_NAME):
            return {FAILURE: "; ".join(str(fault) for fault in error.faults)}
        return _of_sweep(error)
    full = full_disk(error)
    if full is not None:  # met by something that is not ours
        return _of_sweep(unwritable(full.filename or store.local(kept), full))
    first_line = masked(str(error).strip().partition("\n")[0])[:200]
    return {FAILURE: f"{type(error).__name__}: {first_line} (traceback in {kept}/{TRACEBACK})"}


@contextlib.contextmanager
def _traced(folder: Path) -> Iterator[None]:
    """The traceback of a defect, ours or the user's, is left in the trial's folder."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, RaydistillError) and full_disk(error) is None:
            with contextlib.suppress(StorageError):
                write_atomically(folder / TRACEBACK, masked(traceback.format_exc()))
        raise


def _of_sweep(error: RaydistillError) -> dict[str, Any]:
    return {FAILURE: "the sweep cannot go on", FATAL: [str(fault) for fault in error.faults]}


def _epochs(run: RunConfig, training: Iterator[EpochMetrics]) -> Generator[EpochMetrics, None, None]:
    """What the checkpoint holds, then what is trained. The driver passes over the epochs that it has already."""
    checkpoint = Path(str(run.out_dir)) / FILE_NAME
    if checkpoint.exists():
        history, damage = history_or_damage(checkpoint)
        if damage:
            tune.report({ANEW: damage})
        yield from history
    yield from training


def _told(training: Iterator[EpochMetrics]) -> Iterator[EpochMetrics]:
    """Of one process: Tune's own SystemExit reaches who asks for the epochs, so one in here is the user's."""
    try:
        yield from training
    except SystemExit as error:
        raise left_by_its_code(error) from None


def left_by_its_code(error: SystemExit) -> TrainingError:
    """A user's code that ends the process: said as that, Ray would call it a defect of its own."""
    way_out = "raise an error there instead"
    return TrainingError(
        Fault("training", f"code of the model or the dataset called sys.exit({error.code!r})", ABSENT, way_out)
    )


def _retried(reason: str) -> None:
    tune.report({RETRIED: reason})


def with_figures(metrics: EpochMetrics, run: RunConfig, task: Task, latency: bool, own: Sequence[str]) -> EpochMetrics:
    """The last epoch with what the network then costs."""
    device = run.device if torch.cuda.is_available() else "cpu"  # a trial's process has no GPU where its workers do
    checkpoint = Path(str(run.out_dir)) / FILE_NAME
    return replace(metrics, footprint=footprint(checkpoint, task, device, latency=latency, arch=run.arch, own=own))


def report_of(metrics: EpochMetrics) -> dict[str, Any]:
    # as text: Tune would flatten the layers into hundreds of keys of its own
    return {**metrics.scalars, EPOCH: json.dumps(metrics.to_json())}
