"""Replicas of one model on several ranks: each has the gradient of the mean over all ranks' losses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.ranks import Ranks
from raydistill.errors import ConfigError
from raydistill.training.batch_norm import is_over_ranks
from raydistill.training.replica import Replica
from tests.training.crew import Crew, crew


@pytest.fixture(scope="module")
def ranks() -> Iterator[Crew]:
    with crew(2) as processes:
        yield processes


class Forks(nn.Module):
    """One of its layers is for what is asked for, and a buffer counts what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.unused = (nn.Linear(3, 2, bias=False).double() for _ in range(3))
        self.norm = nn.BatchNorm1d(3, affine=False).double()
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, rows: Tensor, *, right: bool = False) -> Tensor:
        self.asked += 1
        return (self.right if right else self.left)(rows)


def test_one_process_calls_the_model_and_nothing_else() -> None:
    model = Forks()
    replica = Replica(model, Ranks())
    rows = torch.randn(4, 3, dtype=torch.float64)
    output = replica(rows, right=True)
    assert torch.equal(output, model.right(rows))
    assert not is_over_ranks(model.norm)
    output.sum().backward()
    before = model.right.weight.grad.clone()  # type: ignore[union-attr]
    replica.exchange()
    replica.settle_buffers()
    assert torch.equal(model.right.weight.grad, before)  # type: ignore[arg-type]
    assert model.left.weight.grad is None
    assert float(model.asked) == 1.0


def rows_of(rank: int) -> Tensor:
    return torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))


def begun(ranks: Ranks) -> tuple[Forks, Replica]:
    torch.manual_seed(0)
    model = Forks()
    return model, Replica(model, ranks)


def learned(ranks: Ranks, steps: int) -> dict[str, Tensor | None]:
    """The gradients of the last of some minibatches, of which each rank squares other rows."""
    model, replica = begun(ranks)
    for _ in range(steps):
        model.zero_grad()
        replica(rows_of(ranks.rank)).square().mean().backward()
        replica.exchange()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_gradients_are_of_the_mean_of_the_losses(ranks: Crew, steps: int) -> None:
    """By hand in the first minibatch, by torch's own means behind it."""
    model, _ = begun(Ranks())
    (sum(model(rows_of(rank)).square().mean() for rank in range(2)) / 2).backward()  # type: ignore[union-attr]
    for found in ranks.run(learned, steps, world=2):
        torch.testing.assert_close(found["left.weight"], model.left.weight.grad)
        assert found["right.weight"] is found["unused.weight"] is None


def forked(ranks: Ranks) -> list[Tensor | None]:
    """The second rank takes the other way."""
    model, replica = begun(ranks)
    replica(rows_of(0), right=ranks.rank == 1).sum().backward()
    replica.exchange()
    return [model.left.weight.grad, model.right.weight.grad]


@pytest.mark.slow
def test_a_parameter_that_one_rank_has_no_gradient_of_gets_the_others_share(ranks: Crew) -> None:
    half = rows_of(0).sum(0).expand(2, 3) / 2
    for grads in ranks.run(forked, world=2):
        for gradient in grads:
            torch.testing.assert_close(gradient, half)


def cut(ranks: Ranks) -> Tensor:
    """A row of a layer is taken away behind the first two minibatches."""
    model, replica = begun(ranks)
    for _ in range(2):
        replica(rows_of(ranks.rank)).sum().backward()
        replica.exchange()
    model.left.weight = nn.Parameter(model.left.weight.detach()[:1].clone())
    for _ in range(2):
        model.zero_grad()
        replica(rows_of(ranks.rank)).sum().backward()
        replica.exchange()
    assert model.left.weight.grad is not None
    return model.left.weight.grad


@pytest.mark.slow
def test_parameters_that_are_cut_are_followed(ranks: Crew) -> None:
    expected = (rows_of(0) + rows_of(1)).sum(0, keepdim=True) / 2
    for found in ranks.run(cut, world=2):
        torch.testing.assert_close(found, expected)


def drifted(ranks: Ranks) -> float:
    model, replica = begun(ranks)
    model.asked.fill_(10.0 * (ranks.rank + 1))
    replica.settle_buffers()
    return float(model.asked)


@pytest.mark.slow
def test_buffers_that_have_drifted_become_the_first_ranks(ranks: Crew) -> None:
    assert ranks.run(drifted, world=2) == [10.0, 10.0]


class Tires(nn.Module):
    """It needs its second layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.calls = nn.Linear(3, 2), nn.Linear(3, 2), 0

    def forward(self, rows: Tensor) -> Tensor:
        self.calls += 1
        return self.first(rows) + self.second(rows) if self.calls <= 2 else self.first(rows)


def tired(ranks: Ranks) -> str:
    replica = Replica(Tires(), ranks)
    try:
        for _ in range(4):
            replica(torch.ones(4, 3)).sum().backward()
            replica.exchange()
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_a_network_that_leaves_parameters_out_later_is_refused_in_one_line(ranks: Crew) -> None:
    rule = "leaves parameters out in some minibatches, which several workers cannot follow"
    assert ranks.run(tired, world=2) == [f"model: {rule}; train it in one process"] * 2
