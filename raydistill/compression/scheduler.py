"""The compression scheduler: runs a schedule's policies inside anyone's training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from raydistill.compression.masks import MaskSet
from raydistill.compression.policies import Policy, Step
from raydistill.compression.rates import PolicyTime
from raydistill.compression.structure import Change, StructureChange
from raydistill.errors import CheckpointError, Fault
from raydistill.schedule import PolicySpec


@dataclass(frozen=True)
class ScheduledPolicy:
    """A policy and the epochs it acts in."""

    policy: Policy
    spec: PolicySpec

    def when(self, epoch: int) -> PolicyTime:
        return PolicyTime(epoch, self.spec.starting_epoch, self.spec.ending_epoch, self.spec.frequency)


class CompressionScheduler:
    """Seven callbacks to call from a training loop; `policies.base` draws where.

    Policies of one epoch act in the order of the file. Masks stay in force once set, in every later epoch and after
    the schedule's end. Made by `raydistill.compression.build`.

    structure: the changes of the network's structure since the scheduler was built, in their order. It is not part of
    `state_dict`: a checkpoint that is to be replayed holds it beside the model, and gives it back here.
    """

    def __init__(
        self, model: nn.Module, policies: Sequence[ScheduledPolicy], masks: MaskSet, warnings: tuple[str, ...] = ()
    ) -> None:
        self.model = model
        self.masks = masks
        self.warnings = warnings
        self.scheduled: tuple[ScheduledPolicy, ...] = ()
        self.structure: tuple[Change, ...] = ()
        self._by_epoch: dict[int, list[ScheduledPolicy]] = {}
        for scheduled in policies:
            self._add(scheduled)
        masks.listeners.append(self.on_structure_change)

    def add(self, policy: Policy, starting_epoch: int, ending_epoch: int, frequency: int = 1) -> None:
        """Add a policy that is not in the schedule's file (knowledge distillation, say); it acts after those that are.

        ending_epoch is exclusive.
        """
        kind = type(policy).__name__
        self._add(
            ScheduledPolicy(
                policy, PolicySpec(len(self.scheduled), kind, kind, {}, starting_epoch, ending_epoch, frequency)
            )
        )

    def _add(self, scheduled: ScheduledPolicy) -> None:
        self.scheduled = (*self.scheduled, scheduled)
        for epoch in scheduled.spec.active_epochs():
            self._by_epoch.setdefault(epoch, []).append(scheduled)

    def may_draw(self, epoch: int) -> bool:
        """Whether any policy may draw random numbers at a minibatch of an epoch that has begun."""
        return any(scheduled.policy.may_draw for scheduled in self._by_epoch.get(epoch, ()))

    def waits(self, epoch: int) -> tuple[int, bool]:
        """How many minibatches policies of an epoch see before they decide, and whether of backward passes."""
        acting = [scheduled.policy for scheduled in self._by_epoch.get(epoch, ())]
        return max((policy.waits for policy in acting), default=0), any(policy.needs_gradients for policy in acting)

    def on_epoch_begin(self, epoch: int) -> None:
        """Raises ConfigError where a weight that is pruned was taken out of the model, or replaced by another shape."""
        named = (name for scheduled in self.scheduled for name in getattr(scheduled.policy, "weights", ()))
        self.masks.follow(self.model, named)
        for scheduled in self._by_epoch.get(epoch, ()):
            scheduled.policy.on_epoch_begin(scheduled.when(epoch))

    def on_minibatch_begin(self, epoch: int, minibatch: int, minibatches: int) -> None:
        for scheduled in self._by_epoch.get(epoch, ()):
            scheduled.policy.on_minibatch_begin(Step(epoch, minibatch, minibatches))

    def before_backward(self, epoch: int, minibatch: int, minibatches: int, loss: Tensor) -> Tensor:
        """The loss to minimise: `loss` and what the policies add. Call ``.backward()`` on what is returned."""
        for scheduled in self._by_epoch.get(epoch, ()):
            loss = scheduled.policy.before_backward(Step(epoch, minibatch, minibatches), loss)
        return loss

    def before_parameter_optimization(self, epoch: int, minibatch: int, minibatches: int) -> None:
        for scheduled in self._by_epoch.get(epoch, ()):
            scheduled.policy.before_parameter_optimization(Step(epoch, minibatch, minibatches))

    def on_minibatch_end(self, epoch: int, minibatch: int, minibatches: int, masked: bool = False) -> None:
        """masked: who calls it has applied the masks that are in force."""
        # Momentum and weight decay move pruned weights off zero even where their gradient is zero.
        if not masked:
            self.masks.apply()
        for scheduled in self._by_epoch.get(epoch, ()):
            scheduled.policy.on_minibatch_end(Step(epoch, minibatch, minibatches))

    def before_validation(self, epoch: int) -> None:
        """What is validated then is what the policies leave. A loop whose schedule has nothing that waits for it (a
        quantizer of trained networks does) may leave it out."""
        for scheduled in self._by_epoch.get(epoch, ()):
            scheduled.policy.before_validation(scheduled.when(epoch))

    def on_epoch_end(self, epoch: int, **metrics: float) -> None:
        """metrics: what was validated, by name the one that selects first; ReduceLROnPlateau needs it, or the loss.
        Where several ranks train, their mean: what is decided by them is the same on all."""
        metrics = self.masks.ranks.mean(metrics)
        for scheduled in self._by_epoch.get(epoch, ()):
            scheduled.policy.on_epoch_end(scheduled.when(epoch), metrics)

    def on_structure_change(self, happened: StructureChange) -> None:
        """The model and its masks were cut: remember how, and tell all policies, of whatever epochs. `thin` with the
        scheduler's `masks` calls it.
        """
        self.structure = (*self.structure, happened.change)
        for scheduled in self.scheduled:
            scheduled.policy.on_structure_change(happened)

    def state_dict(self) -> dict[str, object]:
        """Masks and the policies' own state: tensors and plain values, safe for ``weights_only=True``."""
        return {
            "masks": self.masks.state_dict(),
            "forward_only": self.masks.forward_only(),
            "policies": [scheduled.policy.state_dict() for scheduled in self.scheduled],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state; the masks are applied to the model at once.

        Raises:
            CheckpointError: the state belongs to another model or schedule.
        """
        states = state["policies"]
        if len(states) != len(self.scheduled):
            rule = f"has the state of {len(states)} policies, the schedule has {len(self.scheduled)}"
            raise CheckpointError(Fault("scheduler", rule, way_out="resume with the schedule it was saved with"))
        self.masks.load_state_dict(state["masks"], state.get("forward_only", ()))
        for scheduled, policy_state in zip(self.scheduled, states, strict=True):
            scheduled.policy.load_state_dict(policy_state)
        self.masks.apply()
