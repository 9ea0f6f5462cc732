"""What a run's schedule does to the network that has been trained, before it is validated for the last time."""

from __future__ import annotations

from collections.abc import Sequence

from raydistill.compression import CompressionScheduler
from raydistill.compression.scheduler import ScheduledPolicy
from raydistill.errors import Fault
from raydistill.parts import Optimizer


def ending(scheduler: CompressionScheduler) -> Sequence[ScheduledPolicy]:
    """The policies that act on what training has come to."""
    return [scheduled for scheduled in scheduler.scheduled if scheduled.policy.ends]


def ending_faults(scheduler: CompressionScheduler, epochs: int, optimizer: Optimizer) -> list[Fault]:
    """Where one of them acts in another epoch than the last of so many, or weights are averaged too."""
    faults = []
    for scheduled in ending(scheduler):
        acting = list(scheduled.spec.active_epochs())
        if acting != [epochs - 1]:
            rule = f"{scheduled.policy.says(scheduled.when(epochs - 1))}, so it acts in the last epoch alone"
            way_out = f"give epochs: [{epochs - 1}], or other training.epochs"
            faults.append(Fault(f"{scheduled.spec.path}.epochs", rule, acting, way_out))
        if optimizer.ema is not None:
            rule = "stands beside a policy that rounds the network at the end, which averaged weights cannot follow"
            faults.append(Fault("training.optimizer.ema", rule, optimizer.ema, "leave one of the two out"))
    return faults
