"""Finished trials whose checkpoint was lost afterwards are trained again: their values and their seed are known.

The figures that were recorded stay; what comes back is the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from raydistill.records import RUNNING, Scalar, TrialRecord
from raydistill.sweep.plan import TrialPlan, trial_number
from raydistill.sweep.session import Session
from raydistill.sweep.trials import drawn, run_all


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
        return replace(plan, trial_id=known.trial_id, run=replace(plan.run, seed=known.seed, out_dir=out_dir))

    def record(number: int, values: Mapping[str, Scalar], plan: TrialPlan | None) -> TrialRecord:
        return replace(records[number], state=RUNNING, reason="")

    run_all(session, names, [known.values for known in records], draw, record)
