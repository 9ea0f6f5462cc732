"""A trial that begins where the epochs end that it has in common with the others of its sweep."""

from __future__ import annotations

from pathlib import Path

from raydistill.errors import CheckpointError
from raydistill.storage import Store
from raydistill.sweep.planning.plan import TrialPlan
from raydistill.training import read_checkpoint
from raydistill.training.checkpoint import FILE_NAME, schedule_hash, write_checkpoint


def fork(plan: TrialPlan, store: Store, folder: Path) -> None:
    """Leave those epochs in the trial's folder as if it had trained them, unless it has trained some already. Where
    they are lost it trains them itself.

    Raises:
        StorageError: the folder cannot be written.
    """
    if plan.fork is None or (folder / FILE_NAME).exists():
        return
    with store.lent(plan.fork) as path:
        try:
            content = read_checkpoint(path)
        except CheckpointError:
            return
    said = {"schedule": plan.schedule_text, "schedule_hash": schedule_hash(plan.schedule_text)}
    write_checkpoint(folder / FILE_NAME, {**content, **said})
