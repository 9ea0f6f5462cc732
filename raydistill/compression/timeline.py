"""What a schedule will do, epoch by epoch, said before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from raydistill.compression.scheduler import CompressionScheduler, ScheduledPolicy
from raydistill.compression.sparsity import weights
from raydistill.schedule import KINDS


@dataclass(frozen=True)
class Action:
    """Consecutive epochs in which the same things happen. epochs: first and last. does: one line a policy.

    sparsity: total planned for the last of these epochs, in [0, 1].
    """

    epochs: tuple[int, int]
    does: tuple[str, ...]
    sparsity: float


def taken(scheduler: CompressionScheduler) -> dict[str, tuple[str, ...]]:
    """The weights that each entry of the schedule's sections acts on, by ``section.name``; those that act on none, or
    on whatever there is, are left out."""
    found: dict[str, dict[str, None]] = {}
    for scheduled in scheduler.scheduled:
        path = f"{KINDS[scheduled.spec.kind]}.{scheduled.spec.instance_name}"
        found.setdefault(path, {}).update(dict.fromkeys(scheduled.policy.weights))
    return {path: tuple(names) for path, names in found.items() if names}


def timeline(scheduler: CompressionScheduler) -> list[Action]:
    """All scheduled epochs in order; those in which nothing acts are left out."""
    model_weights = dict(weights(scheduler.model))
    size = sum(weight.numel() for weight in model_weights.values())
    planned: dict[str, float] = {}
    actions: list[Action] = []
    by_epoch: dict[int, list[ScheduledPolicy]] = {}
    for scheduled in scheduler.scheduled:
        for epoch in scheduled.spec.active_epochs():
            by_epoch.setdefault(epoch, []).append(scheduled)
    for epoch in sorted(by_epoch):
        does = []
        for scheduled in by_epoch[epoch]:
            when = scheduled.when(epoch)
            for name, fraction in scheduled.policy.fractions(model_weights, when).items():
                planned[name] = fraction if fraction is not None else planned.get(name, 0.0)
            does.append(f"{scheduled.spec.instance_name}: {scheduled.policy.says(when)}")
        zeros = sum(round(fraction * model_weights[name].numel()) for name, fraction in planned.items())
        action = Action((epoch, epoch), tuple(does), zeros / size if size else 0.0)
        previous = actions[-1] if actions else None
        joins = previous is not None and previous.epochs[1] == epoch - 1 and previous.does == action.does
        if joins and previous is not None and previous.sparsity == action.sparsity:
            actions[-1] = Action((previous.epochs[0], epoch), action.does, action.sparsity)
        else:
            actions.append(action)
    return actions
