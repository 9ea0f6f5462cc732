"""The trunk of a sweep: trained once behind the baseline, kept by the hash of all that determines it, and branched off.

A branch costs its own epochs only, so the front of a sweep with a trunk is many points of one gradual pruning. The
trunk's own networks were trained at a constant rate to the end: none of them is a trial.
"""

from __future__ import annotations

from dataclasses import replace

from raydistill.records import BASELINE
from raydistill.sweep.baseline import kept_behind
from raydistill.sweep.planning.runs import trunk_config
from raydistill.sweep.preparation import train_beforehand
from raydistill.sweep.session import Session
from raydistill.sweep.trial.checkpoint_damage import lost
from raydistill.training import read_checkpoint
from raydistill.training.branch import branch_name


def ensure_trunk(session: Session) -> bool:
    """Make sure that the networks to branch off from are there; False if it was interrupted. The baseline is there.

    Raises:
        RaydistillError: the trunk cannot be trained.
    """
    section, store = session.sweep.sections.trunk, session.store
    if section is None:
        return True
    baseline = str(session.ledger.records[BASELINE].checkpoint)
    with store.lent(baseline) as path:
        content = read_checkpoint(path)
    run = trunk_config(session.sweep)
    if run.precision == "auto":
        run = replace(run, precision=content["precision"])
    folder = kept_behind(session, "trunks", run, content)
    session.branches = {epochs: f"{folder}/{branch_name(epochs)}" for epochs in section.kept}
    damaged = {reference: why for reference in session.branches.values() if (why := lost(reference, store))}
    if not damaged:
        return True
    if there := [why for reference, why in damaged.items() if store.exists(reference)]:
        session.observer.warning(f"the trunk is trained again: {there[0]}")
    levels = session.plan.branches
    passed = f"{100 * min(levels.values()):.1f} to {100 * max(levels.values()):.1f} % sparsity"
    session.observer.step(f"training the trunk, {section.epochs} epochs, {passed}")
    run = replace(run, init_from=baseline, out_dir=folder)
    return train_beforehand(session, run, "the trunk", session.observer.trunk_epoch, section.kept)
