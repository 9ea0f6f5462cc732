"""Whether runs can be one network is tried once of each kind, and said where they cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from raydistill.tasks import TRAIN, Batch, Feed, Loading
from raydistill.tasks.feeds import TensorFeed
from raydistill.training.packing.fitting import Fitting, find, step_seconds
from raydistill.training.packing.member import Member
from raydistill.training.packing.ways import Folded, Mapped
from tests.tasks.own import Line, net
from tests.training.packing.members import TASK, config, member

CPU = torch.device("cpu")


def softened() -> nn.Module:
    """Side by side its softmax would mix networks."""
    return nn.Sequential(nn.Linear(6, 8), nn.Softmax(1), nn.Linear(8, 1))


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 1))


@pytest.fixture
def batch() -> Batch:
    return next(iter(TASK.feed(TRAIN, Loading(CPU, 16)).epoch(0)))


@pytest.mark.parametrize(
    ("make", "way", "why"), [(net, Folded, ""), (softened, Mapped, ""), (dropping, Folded, "it draws random numbers")]
)
def test_the_first_way_that_fits_is_taken(
    make: Callable[[], nn.Module], way: type[Folded | Mapped], why: str, batch: Batch
) -> None:
    network = make()
    found = find(network, TASK, batch, "fp32", 2)
    assert why in found.why
    assert bool(found.why) == bool(why)
    assert type(found.make()) is way
    assert found.used == (frozenset() if why else frozenset(name for name, _ in network.named_parameters()))


def test_a_layer_that_nothing_uses_learns_nothing(batch: Batch) -> None:
    network = net()
    network[0].spare = nn.Linear(3, 3)  # type: ignore[index,assignment]
    assert find(network, TASK, batch, "fp32", 2).used == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_a_kind_is_tried_once_and_said_once() -> None:
    lines: list[str] = []
    fitting = Fitting(lines.append)
    one, other, good = member(0, arch=f"{__name__}:dropping"), member(1, arch=f"{__name__}:dropping"), member(2)
    found = fitting.of(one.kind(), one, 2)
    assert fitting.of(other.kind(), other, 2) is found
    assert fitting.of(good.kind(), good, 2).why == ""
    assert len(lines) == 1
    assert lines[0].startswith(f"trials of {__name__}:dropping are trained one by one: it draws random numbers")


class Drawing(Line):
    """Its batches are drawn from the process's own random state, as augmented images may be."""

    def feed(self, split: str, loading: Loading) -> Feed:
        return Drawn(self.splits[split], split, loading)


class Drawn(TensorFeed):
    def epoch(self, epoch: int) -> Iterator[Batch]:
        for x, y in super().epoch(epoch):
            yield x + torch.rand(()), y


def test_trying_moves_neither_the_network_nor_anybodys_chance() -> None:
    run = config(arch=f"{__name__}:dropping")
    one = Member(0, run, Drawing(), lambda task, config: task, lambda task, split, loading: task.feed(split, loading))
    before = {name: value.clone() for name, value in one.network.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    Fitting(print).of(one.kind(), one, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in one.network.state_dict().items())
    assert all(parameter.grad is None for parameter in one.network.parameters())


def test_passes_are_timed_on_copies(batch: Batch) -> None:
    network = net()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert step_seconds(Folded(network), network, TASK, batch, "fp32", 3) > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
