"""Checkpoints of trials that a crash, a bad disk or a hand has damaged: each costs its trial, none the sweep."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

from raydistill.errors import CheckpointError, Fault, RaydistillError
from raydistill.files import unreadable
from raydistill.records import EpochMetrics
from raydistill.storage import Store
from raydistill.training import read_history

SET_ASIDE = "checkpoint.damaged.pt"


def history_or_damage(checkpoint: Path) -> tuple[list[EpochMetrics], str]:
    """The epochs that a trial's checkpoint holds, and what is wrong with it ("": nothing).

    A damaged one is renamed to `SET_ASIDE` beside it, so that the trial begins at its first epoch. One that the disk
    does not give may be whole; it stays.

    Raises:
        CheckpointError: it cannot be read from the disk.
    """
    try:
        return read_history(checkpoint), ""
    except CheckpointError:
        if not _given(checkpoint):
            raise
        checkpoint.replace(checkpoint.with_name(SET_ASIDE))
        return [], f"its checkpoint is damaged, it is kept as {checkpoint.with_name(SET_ASIDE)}"


def _given(checkpoint: Path) -> bool:
    try:
        with open(checkpoint, "rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


def lost(checkpoint: str, store: Store) -> str:
    """What is wrong with the checkpoint of a trial that is not about to be used ("": nothing): gone, or cut off.

    A look at its directory, which stands at the end of the file: to read all of every trial may take hours. What a
    bucket keeps is whole.

    Raises:
        StorageError: the disk does not give it.
    """
    if not store.exists(checkpoint):
        return f"{checkpoint}: does not exist any more"
    if store.outlives_this_machine:
        return ""
    try:
        with zipfile.ZipFile(store.local(checkpoint)):
            return ""
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return f"{checkpoint}: is damaged"
    except OSError as error:
        raise unreadable(checkpoint, error) from error


def is_of(error: RaydistillError, checkpoint: str | Path) -> bool:
    """Whether all that an error says is wrong is this checkpoint, a path or a reference of the storage's."""
    if not isinstance(error, CheckpointError):
        return False
    places = [fault.where for fault in error.faults if isinstance(fault, Fault)]
    return len(places) == len(error.faults) and all(
        place == str(checkpoint) or Path(place).resolve() == Path(checkpoint).resolve() for place in places
    )


def named(error: RaydistillError, path: Path, reference: str) -> RaydistillError:
    """What is wrong with a checkpoint that was brought here as `path`, said of its `reference`."""
    if not is_of(error, path):
        return error
    faults = [replace(fault, where=reference) for fault in error.faults if isinstance(fault, Fault)]
    return CheckpointError(*faults)
