"""How far a schedule reaches, held against the epochs of a run."""

from __future__ import annotations

from raydistill.errors import Fault
from raydistill.schedule.spec import ScheduleSpec


def policies_beyond(schedule: ScheduleSpec, epochs: int, key: str) -> list[Fault | str]:
    """A policy that ends after training does would leave its target unreached, silently. key: what says `epochs`."""
    faults: list[Fault | str] = []
    for policy in schedule.policies:
        if policy.ending_epoch > epochs:
            field = "epochs" if policy.epochs is not None else "ending_epoch"
            where = f"{schedule.source}: {policy.path}.{field}"
            rule = f"must end within {key} ({epochs})"
            faults.append(Fault(where, rule, policy.ending_epoch, f"lower it or raise {key}"))
    return faults
