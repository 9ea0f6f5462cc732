"""A planned run names its files as the storage does; here these become files of the machine that it runs on."""

from __future__ import annotations

from dataclasses import replace

from raydistill.storage import Store
from raydistill.sweep.plan import TrialPlan
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
    teaching = run.distillation
    if teaching is not None and teaching.checkpoint is not None:
        teaching = replace(teaching, checkpoint=str(store.fetched(teaching.checkpoint)))
    return replace(
        run,
        out_dir=str(store.local(str(run.out_dir))),
        init_from=str(store.fetched(run.init_from)) if run.init_from is not None else None,
        distillation=teaching,
    )
