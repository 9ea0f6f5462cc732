"""Batch norm over ranks against torch's own over all rows in one process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional

from raydistill.compression.ranks import Ranks, statistics_over
from raydistill.training.batch_norm import is_over_ranks, over_ranks
from raydistill.training.replica import Replica
from tests.training.crew import Crew, crew


@pytest.fixture(scope="module")
def ranks() -> Iterator[Crew]:
    with crew(4, smaller=(2,)) as processes:
        yield processes


@pytest.fixture(scope="module")
def alone() -> Iterator[Ranks]:
    """A group of one: everything is sent, to nobody else."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield Ranks.of_process_group()
    distributed.destroy_process_group()


class Normed(nn.Module):
    """Batch norm in one and in two dimensions, a layer that nothing uses, and dropout that drops nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.flat, self.last = nn.BatchNorm1d(4, affine=False, momentum=None), nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.flat(torch.relu(self.norm(self.conv(images))).mean((2, 3))))


def stepped(ranks: Ranks) -> dict[str, torch.Tensor]:
    """Some steps in double precision, where nothing but a mistake is visible; in one of them a rank has no rows."""
    torch.manual_seed(0)
    model = Normed().double().train()
    replica, optimizer = Replica(model, ranks), torch.optim.SGD(model.parameters(), lr=0.1)
    images, labels = torch.randn(13, 3, 6, 6, dtype=torch.float64), torch.randint(3, (13,))
    for start, stop in ((0, 10), (10, 13), (0, 10)):
        own = slice(start + ranks.rank, stop, ranks.world)
        rows = len(labels[own])
        ranks.idle = not rows
        own = own if rows else slice(start, start + 1)
        loss = functional.cross_entropy(replica(images[own]), labels[own]) * (rows * ranks.world / (stop - start))
        optimizer.zero_grad()
        loss.backward()
        replica.exchange()
        optimizer.step()
    ranks.idle = False
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_batch_norm_looks_at_the_whole_batch(ranks: Crew, world: int) -> None:
    expected = stepped(Ranks())
    for found in ranks.run(stepped, world=world):
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-12, rtol=0)


LAYERS = {
    "1d": (lambda: nn.BatchNorm1d(4), (6, 4)),
    "1d of sequences": (lambda: nn.BatchNorm1d(4), (3, 4, 5)),
    "2d": (lambda: nn.BatchNorm2d(4), (3, 4, 5, 2)),
    "3d": (lambda: nn.BatchNorm3d(4), (2, 4, 3, 2, 2)),
    "a cumulative average": (lambda: nn.BatchNorm1d(4, momentum=None), (6, 4)),
    "another momentum": (lambda: nn.BatchNorm1d(4, momentum=0.3, eps=0.1), (6, 4)),
    "nothing learnt": (lambda: nn.BatchNorm2d(4, affine=False), (3, 4, 5, 2)),
    "nothing tracked": (lambda: nn.BatchNorm2d(4, track_running_stats=False), (3, 4, 5, 2)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_on_one_rank_it_is_torchs_own(kind: str, alone: Ranks) -> None:
    make, shape = LAYERS[kind]
    theirs, ours = make().double(), make().double()
    over_ranks(ours)
    for step in range(2):
        torch.manual_seed(step)
        given = [3 * torch.randn(shape, dtype=torch.float64) + 1] * 2
        x, y = (tensor.clone().requires_grad_() for tensor in given)
        weighing = torch.randn(shape, dtype=torch.float64)
        (theirs(x) * weighing).sum().backward()
        with statistics_over(alone):
            (ours(y) * weighing).sum().backward()
        torch.testing.assert_close(y.grad, x.grad)
    for expected, found in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, buffer in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], buffer)
    theirs.eval(), ours.eval()
    with statistics_over(alone):
        torch.testing.assert_close(ours(given[0]), theirs(given[0]))


def test_only_batch_norms_are_changed_and_keep_their_tensors() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Sequential(nn.BatchNorm1d(4)))
    before = dict(model.state_dict(keep_vars=True))
    over_ranks(model)
    assert [name for name, module in model.named_modules() if is_over_ranks(module)] == ["1", "3.0"]
    assert isinstance(model[1], nn.BatchNorm2d)
    assert all(value is before[name] for name, value in model.state_dict(keep_vars=True).items())


def test_without_ranks_it_is_an_ordinary_one() -> None:
    theirs, ours = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    over_ranks(ours)
    rows = torch.randn(5, 4)
    assert torch.equal(ours(rows), theirs(rows))
    assert torch.equal(ours.running_var, theirs.running_var)  # type: ignore[arg-type]


def test_one_row_in_all_has_no_variance(alone: Ranks) -> None:
    norm = nn.BatchNorm1d(4)
    over_ranks(norm)
    with statistics_over(alone), pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.randn(1, 4))


def test_precision_of_half_the_bits_has_statistics_of_all(alone: Ranks) -> None:
    """A mean of 1000 and a deviation of 8, which sums in bfloat16 would lose."""
    norm = nn.BatchNorm1d(2, momentum=1.0)
    over_ranks(norm)
    rows = (1000 + 8 * torch.randn(4096, 2, generator=torch.Generator().manual_seed(0))).bfloat16()
    with statistics_over(alone):
        found = norm(rows)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(norm.running_mean, rows.double().mean(0).float())
    torch.testing.assert_close(norm.running_var, rows.double().var(0).float(), rtol=1e-3, atol=0)
