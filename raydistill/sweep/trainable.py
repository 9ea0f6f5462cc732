"""What runs in a trial's process: `fit`, its epochs reported to Ray Tune."""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from raydistill.datasets import Dataset
from raydistill.errors import RaydistillError, StorageError, TrainingError
from raydistill.files import full_disk, unwritable, write_atomically
from raydistill.records import EpochMetrics
from raydistill.sweep.locks import hold
from raydistill.sweep.orphans import patience_s
from raydistill.training import RunConfig, fit, read_history
from raydistill.training.footprint import footprint

METRICS = "metrics"
FAILURE = "failure"
"""Key of a report that ends its trial: training cannot go on, for the reason given."""

FATAL = "fatal"
"""Key of a report that ends the whole sweep: what every other trial would meet too, such as a full disk."""


def train_trial(config: Mapping[str, Any], *, shared: list[Any], latency: bool = False) -> None:
    """Tune's function trainable: one leg of a trial (see `conductor.Leg`).

    config: trial_id, plan (a `TrialPlan`, `Boxed`), known and until. shared: the dataset's boxed reference; its arrays
    are read in place, not copied. latency: whether the trained network's latency is wanted.

    A user's mistake, a diverged loss or a defect ends this trial with a reason; only the death of the process is left
    to Tune, which starts the trial again from its checkpoint.
    """
    run = config["plan"].content.run
    folder = Path(str(run.out_dir))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        dataset = ray.get(shared[0])
        lock = folder / "lock"
        # tune.report raises SystemExit when the trial is to stop: closing ends fit's run and puts torch's settings back
        with (
            hold(lock, "this trial", patience_s(lock), seize=True) as held,
            contextlib.closing(_epochs(run, dataset)) as epochs,
        ):
            for metrics in epochs:
                if not held.ours:
                    return  # this machine was cut off, and the trial goes on elsewhere
                if metrics.epoch + 1 == run.epochs:
                    figures = footprint(folder / "checkpoint.pt", dataset.image_shape, run.device, latency=latency)
                    metrics = replace(metrics, figures=figures)
                if metrics.epoch >= config["known"]:
                    tune.report(_report(metrics))
                if metrics.epoch + 1 == config["until"]:
                    break  # it pauses by ending: what waits in a report would hold on to the worker
    except TrainingError as error:
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


def _report(metrics: EpochMetrics) -> dict[str, Any]:
    figures = ("top1", "top5", "loss", "train_loss", "sparsity")
    report: dict[str, Any] = {name: getattr(metrics, name) for name in figures}
    # as text: Tune would flatten the layers into hundreds of keys of its own
    return {**report, METRICS: json.dumps(metrics.to_json())}
