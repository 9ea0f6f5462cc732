"""The first epochs that trials of a sweep have in common: trained once, with what a trial is given, and forked from."""

from __future__ import annotations

from dataclasses import replace

from raydistill.records import BASELINE
from raydistill.sweep.baseline import kept_behind
from raydistill.sweep.preparation import epochs_done, train_beforehand
from raydistill.sweep.session import Session
from raydistill.sweep.trials import drawn
from raydistill.training import read_checkpoint
from raydistill.training.checkpoint import FILE_NAME


def ensure_common_start(session: Session) -> bool:
    """Make sure that they are trained; False if it was interrupted. The baseline is there.

    Raises:
        RaydistillError: they cannot be trained.
    """
    epochs, store, first = session.plan.common_start, session.store, session.plan.first
    if not epochs or first is None:
        return True
    with store.lent(str(session.ledger.records[BASELINE].checkpoint)) as path:
        begun = read_checkpoint(path)
    run = drawn(session)(0, first.values).run
    alike = replace(first.run, precision=run.precision)
    folder = kept_behind(session, "starts", alike, begun, str(epochs))
    session.common_start = f"{folder}/{FILE_NAME}"
    with store.lent(session.common_start) as path:
        done = epochs_done(path)
    if done >= epochs:
        return True
    session.observer.step(f"training what trials have in common, the first {epochs} of their epochs")
    run, told = replace(run, out_dir=folder), session.observer.common_epoch
    return train_beforehand(session, run, "the start of trials", told, until=epochs, share=session.share)
