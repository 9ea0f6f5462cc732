"""One step of all trials is the step that torch's SGD makes of each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from raydistill.parts import Optimizer
from raydistill.training.packing.member import Member
from raydistill.training.packing.stack import Stack
from raydistill.training.packing.steps import SharedSteps, steps_of
from tests.training.packing.members import member

NAMES = frozenset({"0.weight", "0.bias", "2.weight", "2.bias"})


def stacked(members: Sequence[Member]) -> tuple[Stack, SharedSteps | None]:
    stack = Stack([one.network for one in members], NAMES)
    stack.begin_gradients()
    return stack, steps_of(members, stack)


def learn(member: Member, step: int) -> None:
    """Gradients of a member and of a step, in place."""
    draw = torch.Generator().manual_seed(100 * member.key + step)
    for parameter in member.network.parameters():
        assert parameter.grad is not None
        parameter.grad.copy_(torch.randn(parameter.shape, generator=draw))


class Alone:
    """A member's network and optimizer once more, as torch steps them."""

    def __init__(self, member: Member) -> None:
        self.network, self.optimizer = copy.deepcopy((member.network, member.run.optimizer))
        self.member = member
        for parameter in self.network.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def step(self, step: int, share: float = 1.0) -> None:
        for own, theirs in zip(self.network.parameters(), self.member.network.parameters(), strict=True):
            assert own.grad is not None
            assert theirs.grad is not None
            own.grad.copy_(theirs.grad)
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] *= share
        self.optimizer.step()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def assert_same(self) -> None:
        for own, theirs in zip(self.network.parameters(), self.member.network.parameters(), strict=True):
            torch.testing.assert_close(theirs, own)
            before, now = self.optimizer.state[own], self.member.run.optimizer.state[theirs]
            torch.testing.assert_close(now["momentum_buffer"], before["momentum_buffer"])


@pytest.mark.parametrize("nesterov", [False, True])
def test_rates_decays_and_momentums_are_each_trials_own(nesterov: bool) -> None:
    members = [
        member(0, lr=0.1, weight_decay=0.0, momentum=0.9, nesterov=nesterov),
        member(1, lr=0.02, weight_decay=0.3, momentum=0.5, nesterov=nesterov),
        member(2, lr=0.3, nesterov=nesterov, optimizer=Optimizer(
            no_decay=("biases",), groups=({"parameters": ["2.*"], "weight_decay": 0.2},)
        )),
    ]  # fmt: skip
    alone = [Alone(one) for one in members]
    _, steps = stacked(members)
    assert steps is not None
    for step in range(4):
        for one, other in zip(members, alone, strict=True):
            if step == 2:  # as a schedule changes it
                for optimizer in (one.run.optimizer, other.optimizer):
                    optimizer.param_groups[0]["lr"] *= 0.1
            learn(one, step)
            other.step(step)
        steps.step(members, (step + 1) / 4)
    for other in alone:
        other.assert_same()


def test_a_momentum_that_was_there_goes_on_and_is_given_back() -> None:
    members = [member(0), member(1)]
    alone = [Alone(one) for one in members]
    for one, other in zip(members, alone, strict=True):
        for parameter in one.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        learn(one, 7)
        other.step(7)
        one.run.optimizer.step()
    _, steps = stacked(members)
    assert steps is not None
    for one, other in zip(members, alone, strict=True):
        learn(one, 8)
        other.step(8)
    steps.step(members, 1.0)
    steps.release()
    for one, other in zip(members, alone, strict=True):
        other.assert_same()
        for state in one.run.optimizer.state.values():
            assert state["momentum_buffer"].untyped_storage().nbytes() == state["momentum_buffer"].numel() * 4


def test_a_rate_that_rises_is_each_trials_share() -> None:
    members = [member(0, optimizer=Optimizer(warmup_epochs=2.0)), member(1)]
    alone = [Alone(one) for one in members]
    _, steps = stacked(members)
    assert steps is not None
    for step, done in enumerate((0.5, 1.0)):
        for one, other in zip(members, alone, strict=True):
            learn(one, step)
            other.step(step, share=1.0 if one.key else done / 2)
        steps.step(members, done)
    for other in alone:
        other.assert_same()


def test_masks_hold_and_new_ones_are_followed() -> None:
    members = [member(0), member(1)]
    _stack, steps = stacked(members)
    assert steps is not None
    for one in members:
        one.run.scheduler.masks.follow(one.network)
    keep = torch.zeros(8, 6)
    keep[0] = 1
    members[1].run.scheduler.masks.set("0.weight", keep)
    for step in range(2):
        for one in members:
            learn(one, step)
        steps.step(members, 1.0)
    first, second = (one.network.get_submodule("0").weight for one in members)
    assert int((second == 0).sum()) == 42  # type: ignore[operator,union-attr,arg-type]
    assert int((first == 0).sum()) == 0  # type: ignore[operator,union-attr,arg-type]
    members[1].run.scheduler.masks.set("0.weight", torch.zeros(8, 6))
    for one in members:
        learn(one, 3)
    steps.step(members, 1.0)
    assert int((second == 0).sum()) == 48  # type: ignore[operator,union-attr,arg-type]


def test_one_that_does_not_go_on_stays_where_it_is() -> None:
    members = [member(0), member(1)]
    _, steps = stacked(members)
    assert steps is not None
    before = [parameter.detach().clone() for parameter in members[1].network.parameters()]
    for one in members:
        learn(one, 0)
    steps.step(members[:1], 1.0)
    assert all(map(torch.equal, members[1].network.parameters(), before))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"optimizer": Optimizer(name="AdamW", lr=0.1), "lr": 0.05}, {}),
        ({"optimizer": Optimizer(clip_norm=1.0)}, {}),
        ({"optimizer": Optimizer(accumulate=2)}, {}),
        ({"momentum": 0.0}, {}),
        ({"nesterov": True}, {}),
        ({"precision": "fp16"}, {"precision": "fp16"}),
    ],
)
def test_optimizers_that_do_more_step_by_themselves(first: dict[str, Any], second: dict[str, Any]) -> None:
    members = [member(0, **first), member(1, **second)]
    assert stacked(members)[1] is None
    assert stacked([member(0), member(1)])[1] is not None
