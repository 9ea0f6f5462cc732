"""What a schedule will do, epoch by epoch, said before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from raydistill.compression.policies import LRPolicy, PruningPolicy, RegularizationPolicy
from raydistill.compression.pruners import Pruner
from raydistill.compression.scheduler import CompressionScheduler, ScheduledPolicy
from raydistill.compression.sparsity import weights


@dataclass(frozen=True)
class Action:
    """Consecutive epochs in which the same things happen. epochs: first and last. does: one line a policy.

    sparsity: total planned for the last of these epochs, in [0, 1].
    """

    epochs: tuple[int, int]
    does: tuple[str, ...]
    sparsity: float


def outline(scheduler: CompressionScheduler) -> list[Action]:
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
            policy = scheduled.policy
            if isinstance(policy, PruningPolicy):
                for name in policy.weights:
                    if name in model_weights:
                        fraction = policy.pruner.fraction(name, model_weights[name], scheduled.when(epoch))
                        planned[name] = fraction if fraction is not None else planned.get(name, 0.0)
            does.append(_said(scheduled, epoch))
        zeros = sum(round(fraction * model_weights[name].numel()) for name, fraction in planned.items())
        action = Action((epoch, epoch), tuple(does), zeros / size if size else 0.0)
        previous = actions[-1] if actions else None
        joins = previous is not None and previous.epochs[1] == epoch - 1 and previous.does == action.does
        if joins and previous is not None and previous.sparsity == action.sparsity:
            actions[-1] = Action((previous.epochs[0], epoch), action.does, action.sparsity)
        else:
            actions.append(action)
    return actions


def _said(scheduled: ScheduledPolicy, epoch: int) -> str:
    policy, name = scheduled.policy, scheduled.spec.instance_name
    if isinstance(policy, PruningPolicy):
        levels = {policy.pruner.level(weight, scheduled.when(epoch)) for weight in policy.weights}
        return f"{name}: {_count(policy.weights)} {_level(policy.pruner, levels)}"
    if isinstance(policy, RegularizationPolicy):
        return f"{name}: regularises {_count(policy.weights)}"
    if isinstance(policy, LRPolicy):
        return f"{name}: steps the learning rate"
    return f"{name}: {type(policy).__name__}"


def _count(names: tuple[str, ...]) -> str:
    return "1 weight" if len(names) == 1 else f"{len(names)} weights"


def _level(pruner: Pruner, levels: set[float | None]) -> str:
    known = sorted(level for level in levels if level is not None)
    if not known:
        return f"by {type(pruner).__name__}"
    low, high = known[0], known[-1]
    return f"to {low:.1%}" if low == high else f"to {low:.1%} ... {high:.1%}"
