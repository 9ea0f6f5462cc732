"""Hidden states of a student against its teacher's: the formulas, widths that differ, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression import build
from raydistill.compression.distillation import KnowledgeDistillationPolicy
from raydistill.compression.hidden_states import HiddenStates, check_hidden
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule


def network(width: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 3))


X = torch.randn(16, 6, generator=torch.Generator().manual_seed(3))


def policy(student: nn.Module, teacher: nn.Module, **hidden: Any) -> KnowledgeDistillationPolicy:
    return KnowledgeDistillationPolicy(student, teacher, 2.0, 0.0, 0.0, **hidden)


def scheduled(student: nn.Module, made: KnowledgeDistillationPolicy, optimizer: torch.optim.Optimizer) -> Any:
    scheduler = build(parse_schedule({"version": 1}, "s.yaml"), student, optimizer)
    scheduler.add(made, 0, 1)
    scheduler.on_epoch_begin(0)
    return scheduler


def step(scheduler: Any, student: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    scheduler.on_minibatch_begin(0, 0, 2)
    optimizer.zero_grad()
    loss = scheduler.before_backward(0, 0, 2, student(X).sum())
    loss.backward()
    scheduler.before_parameter_optimization(0, 0, 2)
    optimizer.step()
    scheduler.on_minibatch_end(0, 0, 2)
    return float(loss.detach())


@pytest.mark.parametrize("kind", ["mse", "cosine"])
def test_states_of_equal_width_are_held_against_each_other(kind: str) -> None:
    student, teacher = network(8, 0), network(8, 1)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.0)
    made = policy(student, teacher, hidden={"1": "3", "3": "3"}, hidden_wt=0.5, hidden_loss=kind)
    scheduler = scheduled(student, made, optimizer)
    with torch.no_grad():
        theirs = teacher[:4](X)
        pairs = [(student[:2](X), theirs), (student[:4](X), theirs)]
        if kind == "mse":
            terms = [(a - b).square().mean() for a, b in pairs]
        else:
            terms = [1 - functional.cosine_similarity(a, b, dim=1).mean() for a, b in pairs]
    assert step(scheduler, student, optimizer) == pytest.approx(0.5 * float(sum(terms)) / 2, rel=1e-5)
    assert student[0].weight.grad is not None
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert scheduler.state_dict()["policies"] == [{}]
    assert not any(module._forward_hooks for net in (student, teacher) for module in net.modules())


def test_feature_maps_are_compared_along_their_channels() -> None:
    student, teacher = nn.Sequential(nn.Conv2d(2, 4, 3)), nn.Sequential(nn.Conv2d(2, 4, 3))
    states, x = HiddenStates(student, teacher, {"0": "0"}, "cosine"), torch.randn(2, 2, 5, 5)
    states.listen()
    mine, theirs = student(x), teacher(x)
    torch.testing.assert_close(states.loss(), 1 - functional.cosine_similarity(mine, theirs, dim=1).mean())


@pytest.mark.slow
def test_where_widths_differ_a_matrix_learns_along_and_is_kept() -> None:
    student, teacher = network(5, 0), network(8, 1)
    before = torch.get_rng_state()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.3)
    made = policy(student, teacher, hidden={"3": "3"})
    scheduler = scheduled(student, made, optimizer)
    losses = [step(scheduler, student, optimizer) for _ in range(400)]
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(before, torch.get_rng_state()), "the run's own draws stay what they are"
    state = scheduler.state_dict()
    assert state["policies"][0]["matrices"]["3"].shape == (5, 8)
    other = scheduled(student, policy(student, teacher, hidden={"3": "3"}), optimizer)
    fresh = step(other, student, torch.optim.SGD(student.parameters(), lr=0.0))
    other.load_state_dict(state)
    kept = step(other, student, torch.optim.SGD(student.parameters(), lr=0.0))
    assert kept == pytest.approx(losses[-1], rel=0.05)
    assert fresh > 2 * kept


def test_what_cannot_be_is_one_line() -> None:
    student, teacher = network(8, 0), network(8, 1)
    with pytest.raises(ConfigError) as caught:
        policy(student, teacher, hidden={"9": "3", "1": "33"})
    assert [str(fault).partition(";")[0] for fault in caught.value.faults] == [
        "distillation.hidden: the student has no such module, got '9'",
        "distillation.hidden: the teacher has no such module, got '33'",
    ]
    said = [str(fault) for fault in check_hidden({"a": 3}, -1.0, "mes")]  # type: ignore[dict-item]
    assert len(said) == 3
    assert "did you mean 'mse'" in said[1]
    assert check_hidden({"a": "b"}, 0.5, "cosine") == []
    unused = nn.Sequential(*student, nn.Identity())
    unused.add_module("idle", nn.Linear(2, 2))
    unused.forward = lambda x: student(x)  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(student.parameters(), lr=0.0)
    with pytest.raises(ConfigError, match="the student's module gives no hidden states in this minibatch, got 'idle'"):
        step(scheduled(unused, policy(unused, teacher, hidden={"idle": "3"}), optimizer), unused, optimizer)


class Tokens(nn.Module):
    def __init__(self, many: int) -> None:
        super().__init__()
        self.many, self.inner, self.head = many, nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x.unsqueeze(1).expand(-1, self.many, -1)).mean(1))


def test_states_of_other_resolutions_are_told() -> None:
    student, teacher = Tokens(4), Tokens(5)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.0)
    with pytest.raises(ConfigError, match=r"gives \(16, 4\) states, the teacher's module \(16, 5\)"):
        step(scheduled(student, policy(student, teacher, hidden={"inner": "inner"}), optimizer), student, optimizer)


def test_a_network_within_another_is_named_as_by_itself() -> None:
    class Taught(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x)

    student, teacher = network(8, 0), Taught()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.0)
    found = step(scheduled(student, policy(student, teacher, hidden={"3": "3"}), optimizer), student, optimizer)
    with torch.no_grad():
        expected = (student[:4](X) - teacher.network[:4](X)).square().mean()
    assert found == pytest.approx(float(expected), rel=1e-5)
