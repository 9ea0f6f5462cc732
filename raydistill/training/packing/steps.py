"""One optimizer step of all trials: SGD over one tensor that holds all their parameters, each element with the rate,
the decay and the momentum of its trial.

Each trial's own optimizer keeps its state: its momentum is a view of what is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from raydistill.training.packing.member import Member
from raydistill.training.packing.stack import Stack

_MOMENTUM = "momentum_buffer"
_PLAIN = {"dampening": 0, "maximize": False, "differentiable": False}


def steps_of(members: Sequence[Member], stack: Stack) -> SharedSteps | None:
    """None where a trial's optimizer does more than SGD with momentum, or a policy withholds gradients from it: then
    each makes its own step."""
    groups = [group for member in members for group in member.run.optimizer.param_groups]
    alike = len({bool(group.get("nesterov")) for group in groups}) == 1
    plain = all(
        type(member.run.optimizer) is torch.optim.SGD and member.run.stepping.plain for member in members
    ) and all(group["momentum"] > 0 and all(group[key] == value for key, value in _PLAIN.items()) for group in groups)
    plain = plain and not any(each.policy.withholds for m in members for each in m.run.scheduler.scheduled)
    return SharedSteps(members, stack) if plain and alike and stack.flat is not None else None


class SharedSteps:
    """members: in the places of the stack."""

    def __init__(self, members: Sequence[Member], stack: Stack) -> None:
        assert stack.flat is not None
        assert stack.flat_gradients is not None
        self._members, self._stack = tuple(members), stack
        self._values, self._gradients = stack.flat, stack.flat_gradients
        self._momentum = torch.zeros_like(self._values)
        self._nesterov = bool(members[0].run.optimizer.param_groups[0]["nesterov"])
        self._sizes: list[int] = []
        self._groups: list[tuple[Member, dict[str, Any]]] = []
        self._which: list[int] = []
        known: dict[int, int] = {}
        views = stack.views(self._momentum)
        parameters = [dict(member.network.named_parameters()) for member in members]
        for name in stack.used:
            for place, member in enumerate(members):
                parameter = parameters[place][name]
                optimizer = member.run.optimizer
                state, view = optimizer.state[parameter], views[name][place]
                if state.get(_MOMENTUM) is not None:
                    view.copy_(state[_MOMENTUM])
                state[_MOMENTUM] = view
                self._sizes.append(parameter.numel())
                group = _group_of(optimizer, parameter)
                if known.setdefault(id(group), len(known)) == len(self._groups):
                    self._groups.append((member, group))
                self._which.append(known[id(group)])
        self._said: list[tuple[float, float, float]] = []
        self._rates = self._decays = self._keeps = self._values
        self._changes: list[int] = []
        self._masks: Tensor | None = None

    @torch.no_grad()
    def step(self, going: Sequence[Member], done: float) -> None:
        """A step of those that go on, and their masks. done: of the epoch."""
        share = {member.key: member.run.stepping.warmed(member.epoch + done) for member in going}
        self._look(share)
        gradients, momentum = self._gradients, self._momentum
        gradients.addcmul_(self._decays, self._values)
        momentum.mul_(self._keeps).add_(gradients)
        step = gradients.addcmul_(self._keeps, momentum) if self._nesterov else momentum
        self._values.addcmul_(self._rates, step, value=-1)
        if self._masks is not None:
            self._values.mul_(self._masks)

    def release(self) -> None:
        """Give each optimizer its own state again."""
        for member in self._members:
            for state in member.run.optimizer.state.values():
                if state.get(_MOMENTUM) is not None:
                    state[_MOMENTUM] = state[_MOMENTUM].clone()

    def _look(self, share: dict[int, float]) -> None:
        """Follow what has changed of rates, decays and masks."""
        said = [
            (float(group["lr"]) * share.get(member.key, 0.0), float(group["weight_decay"]), float(group["momentum"]))
            for member, group in self._groups
        ]
        if said != self._said:
            self._said = said
            self._rates, self._decays, self._keeps = (self._spread([each[i] for each in said]) for i in range(3))
        changes = [member.run.scheduler.masks.changes for member in self._members]
        if changes != self._changes:
            self._changes = changes
            self._masks = self._gathered()

    def _spread(self, numbers: list[float]) -> Tensor:
        """A number for each group of parameters to all of its elements."""
        each = torch.tensor([numbers[which] for which in self._which], dtype=self._values.dtype)
        each = each.to(self._values.device)
        return each.repeat_interleave(torch.tensor(self._sizes, device=each.device), output_size=len(self._values))

    def _gathered(self) -> Tensor | None:
        flat = torch.ones_like(self._values)
        views, found = self._stack.views(flat), False
        for place, member in enumerate(self._members):
            masks = member.run.scheduler.masks
            for name in set(masks.names()) - set(masks.forward_only()):
                views[name][place].copy_(masks[name])
                found = True
        return flat if found else None


def _group_of(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, object]:
    return next(group for group in optimizer.param_groups if any(own is parameter for own in group["params"]))
