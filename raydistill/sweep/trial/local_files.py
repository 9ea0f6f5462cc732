"""A planned run names its files as the storage does; here these become files of the machine that it runs on."""

from __future__ import annotations

from dataclasses import replace

from raydistill.storage import Store
from raydistill.sweep.planning.plan import TrialPlan
from raydistill.training import RunConfig


def taught_by(plan: TrialPlan, store: Store) -> TrialPlan:
    """A user's own teacher, made good on every node."""
    teaching = plan.run.distillation
    if teaching is None or teaching.checkpoint is None:
        return plan
    teaching = replace(teaching, checkpoint=store.given(teaching.checkpoint))
    return replace(plan, run=replace(plan.run, distillation=teaching))


def here(run: RunConfig, store: Store) -> RunConfig:
    """The run with paths of this machine for its references; what it starts and learns from is brought here.

    Raises:
        StorageError: that cannot be done.
    """
    return run.moved(str(store.local(str(run.out_dir))), {path: str(store.fetched(path)) for path in run.given})
