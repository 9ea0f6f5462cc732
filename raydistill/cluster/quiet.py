"""Ray, Tune and their kind talk a lot; a sweep's own lines are what the user has to see."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator

_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # keeps the GPUs visible to a task that asks for none; Ray's new default
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # trials have a folder of ours
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # a paragraph of the raylet's for each process that dies; we say why in a line
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",  # 3.11.4 and 3.11.7 understand each other
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "1",  # a module is sent as it is imported here, ignored by git or not
    "RAY_SCHEDULER_EVENTS": "0",  # the autoscaler's lines
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the journal has it all, and tensorboardX's fsyncs cost
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `interrupt` has its own
    "TUNE_FORCE_TRIAL_CLEANUP_S": "5",  # a trial told to end may be in a long epoch; its checkpoint is kept
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's snapshots are never read: resuming reads the journal
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",  # one report at a time: a checkpoint is at most one epoch ahead of the journal
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "1000000",
    "TUNE_WARN_THRESHOLD_S": "1000000",
}


def quieten() -> None:
    """Set what silences Ray here and in the processes it starts. Best called before Ray is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module=r"(ray|torch|mlflow|google|pydantic|tensorboardX)(\.|$)")
    for name in ("ray", "ray.tune", "ray.train", "ray.data", "ray._private"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Nothing reaches stderr while the block runs, not even what Ray's C++ side writes there. Keep the block short."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
