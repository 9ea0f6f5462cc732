"""Finished trials whose checkpoint was lost afterwards are trained again: their values and their seed are known.

The figures that were recorded stay; what comes back is the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from raydistill.errors import StorageError
from raydistill.records import BASELINE, FINISHED, RUNNING, Scalar, TrialRecord
from raydistill.sweep.planning.plan import TrialPlan, trial_number
from raydistill.sweep.record.journal import History
from raydistill.sweep.session import Session
from raydistill.sweep.trial.checkpoint_damage import lost
from raydistill.sweep.trials import drawn, run_all


def train_lost(session: Session, history: History) -> None:
    """On the front or off it, all that had finished before this sweep was resumed and whose network is gone.

    Off the front nothing else would notice: nobody reads those checkpoints until somebody wants one.

    Raises:
        RaydistillError: the sweep cannot go on.
    """
    records = []
    for trial_id, before in history.records.items():
        record = session.ledger.records[trial_id]
        if trial_id == BASELINE or before.state != FINISHED or record.state != FINISHED or record.checkpoint is None:
            continue
        try:
            reason = lost(record.checkpoint, session.store)
        except StorageError as error:  # it may be whole
            session.observer.warning(f"trial {trial_id}: {error}")
            continue
        if reason:
            tell(session, trial_id, reason)
            records.append(record)
    if records:
        train_again(session, records)


def tell(session: Session, trial_id: str, reason: str) -> None:
    """Once in a resumed sweep: a trial that is lost a second time is lost."""
    session.trained_again.add(trial_id)
    session.observer.warning(f"trial {trial_id} is trained again, with its values and its seed: {reason}")


def train_again(session: Session, records: list[TrialRecord]) -> None:
    """Run each from its start to its end; one that cannot be trained fails.

    Raises:
        RaydistillError: the sweep cannot go on.
    """
    first = drawn(session)
    names = [record.trial_id for record in records]

    def draw(number: int, values: Mapping[str, Scalar]) -> TrialPlan:
        known = records[number]
        plan = first(trial_number(known.confirms or known.trial_id), values)
        out_dir = session.store.reference(session.folder / "trials" / known.trial_id)
        return plan.repeated(known.trial_id, known.seed, out_dir)

    def record(number: int, values: Mapping[str, Scalar], plan: TrialPlan | None) -> TrialRecord:
        return replace(records[number], state=RUNNING, reason="")

    run_all(session, names, [known.values for known in records], draw, record)
