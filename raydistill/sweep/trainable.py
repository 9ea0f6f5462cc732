"""What runs in a trial's process: `fit`, its epochs reported to Ray Tune."""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from raydistill.cluster.team import Team
from raydistill.cluster.tune_bridge import trial_epochs
from raydistill.cluster.worker import Finish
from raydistill.datasets import Dataset
from raydistill.errors import RaydistillError, ResourceError, StorageError, TrainingError
from raydistill.files import full_disk, unwritable, write_atomically
from raydistill.locks import hold
from raydistill.records import EpochMetrics
from raydistill.training import RunConfig, fit, read_history
from raydistill.training.footprint import footprint

METRICS = "metrics"
FAILURE = "failure"
"""Key of a report that ends its trial: training cannot go on, for the reason given."""

FATAL = "fatal"
"""Key of a report that ends the whole sweep: what every other trial would meet too, such as a full disk."""

ORPHAN_WAIT_S = 30.0
"""How long a resumed trial waits for a process of the killed driver that still trains it."""


RETRIED = "retried"
"""Key of a report that a trial's workers have started again, for the reason given."""


def train_trial(
    config: Mapping[str, Any], *, shared: list[Any], latency: bool = False, team: Team | None = None
) -> None:
    """Tune's function trainable: one leg of a trial (see `conductor.Leg`).

    config: trial_id, plan (a `TrialPlan`, `Boxed`), known and until. shared: the dataset's boxed reference; its arrays
    are read in place, not copied. latency: whether the trained network's latency is wanted. team: the workers to train
    on; None: this process.

    A user's mistake, a diverged loss or a defect ends this trial with a reason; only the death of the process is left
    to Tune, which starts the trial again from its checkpoint.
    """
    run = config["plan"].content.run
    folder = Path(str(run.out_dir))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        dataset = ray.get(shared[0])
        # tune.report raises SystemExit when the trial is to stop: closing ends fit's run and puts torch's settings back
        finish = partial(_with_figures, latency=latency)
        epochs = _epochs(run, dataset) if team is None else _team_epochs(run, shared[0], team, finish)
        with hold(folder / "lock", "this trial", ORPHAN_WAIT_S), contextlib.closing(epochs):
            for metrics in epochs:
                if metrics.epoch + 1 == run.epochs and not metrics.figures:
                    metrics = finish(metrics, run, dataset)
                if metrics.epoch >= config["known"]:
                    tune.report(_report(metrics))
                if metrics.epoch + 1 == config["until"]:
                    break  # it pauses by ending: what waits in a report would hold on to the worker
    except (TrainingError, ResourceError) as error:
        tune.report({FAILURE: "; ".join(str(fault) for fault in error.faults)})
    except RaydistillError as error:
        _end_sweep(error)
    except Exception as error:
        full = full_disk(error)
        if full is not None:  # met by something that is not ours
            _end_sweep(unwritable(full.filename or folder, full))
            return
        path = folder / "error.txt"
        with contextlib.suppress(StorageError):
            write_atomically(path, traceback.format_exc())
        first_line = str(error).strip().partition("\n")[0][:200]
        tune.report({FAILURE: f"{type(error).__name__}: {first_line} (traceback in {path})"})


def _end_sweep(error: RaydistillError) -> None:
    tune.report({FAILURE: "the sweep cannot go on", FATAL: [str(fault) for fault in error.faults]})


def _epochs(run: RunConfig, dataset: Dataset) -> Generator[EpochMetrics, None, None]:
    """What the checkpoint holds, then what is trained. The driver passes over the epochs that it has already."""
    checkpoint = Path(str(run.out_dir)) / "checkpoint.pt"
    if checkpoint.exists():
        yield from read_history(checkpoint)
    yield from fit(run, dataset=dataset)


def _team_epochs(run: RunConfig, dataset: Any, team: Team, finish: Finish) -> Generator[EpochMetrics, None, None]:
    """The same, trained on workers. dataset: its object reference."""
    checkpoint = Path(str(run.out_dir)) / "checkpoint.pt"
    if checkpoint.exists():
        yield from read_history(checkpoint)
    yield from trial_epochs(run, dataset, team, finish, lambda reason: tune.report({RETRIED: reason}))


def _with_figures(metrics: EpochMetrics, run: RunConfig, dataset: Dataset, latency: bool) -> EpochMetrics:
    """The last epoch with what the network then costs."""
    device = run.device if torch.cuda.is_available() else "cpu"  # a trial's process has no GPU where its workers do
    checkpoint = Path(str(run.out_dir)) / "checkpoint.pt"
    return replace(metrics, figures=footprint(checkpoint, dataset.image_shape, device, latency=latency))


def _report(metrics: EpochMetrics) -> dict[str, Any]:
    figures = ("top1", "top5", "loss", "train_loss", "sparsity")
    report: dict[str, Any] = {name: getattr(metrics, name) for name in figures}
    # as text: Tune would flatten the layers into hundreds of keys of its own
    return {**report, METRICS: json.dumps(metrics.to_json())}
