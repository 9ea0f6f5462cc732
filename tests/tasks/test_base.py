"""What every task has without writing it, and what a run asks it for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.ranks import Ranks
from raydistill.metrics import Metric
from raydistill.tasks import Batch, Feed, Loading, Network, Task, Weights
from raydistill.tasks.base import autocast
from raydistill.tasks.feeds import TensorFeed

CPU = torch.device("cpu")
X = torch.arange(10.0)[:, None]


class Squares(Task):
    """The mean of the squares of what the network gives; it must be in eval mode while it is judged."""

    metrics: ClassVar = {"loss": Metric("min")}

    def __init__(self, count: int = 10) -> None:
        self.x = X[:count]

    def feed(self, split: str, loading: Loading) -> Feed:
        return TensorFeed((self.x, self.x), split, loading)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        return network(batch[0]).square().mean()

    def example_input(self, rows: int = 1) -> tuple[Tensor, ...]:
        return (torch.zeros(rows, 1),)


class Watched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []
        self.breaks = False

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        if self.breaks:
            raise ZeroDivisionError
        return x


class Halves(Ranks):
    """One of two, told what the other one found."""

    def __init__(self, rank: int, other: Any = None) -> None:
        super().__init__(rank, 2)
        self.other, self.found = other, None

    def gather(self, value: Any) -> list[Any]:
        self.found = value
        return [value, self.other]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10])
@pytest.mark.parametrize("training", [False, True])
def test_the_evaluation_is_the_mean_over_samples_whatever_the_batches(batch_size: int, training: bool) -> None:
    task, network = Squares(), Watched().train(training)
    loading = Loading(CPU, batch_size)
    assert task.evaluate(network, task.feed("test", loading), loading) == {
        "loss": pytest.approx(sum(i * i for i in range(10)) / 10)
    }
    assert set(network.modes) == {False}
    assert network.training is training


def test_the_mode_is_put_back_where_the_network_fails() -> None:
    task, network, loading = Squares(), Watched().train(), Loading(CPU, 4)
    network.breaks = True
    with pytest.raises(ZeroDivisionError):
        task.evaluate(network, task.feed("test", loading), loading)
    assert network.training


def test_ranks_find_what_one_process_would() -> None:
    """Of nine samples in batches of four: the two have five and four, or a row twice that counts once."""
    task = Squares(9)
    parts = []
    for rank in (0, 1):
        ranks = Halves(rank, (0.0, 0))
        loading = Loading(CPU, 4, ranks=ranks)
        task.evaluate(Watched(), task.feed("test", loading), loading)
        parts.append(ranks.found)
    whole = sum(i * i for i in range(9))
    assert sum(part[1] for part in parts) == 9  # type: ignore[index]
    assert sum(part[0] for part in parts) == pytest.approx(whole)  # type: ignore[index]
    ranks = Halves(0, parts[1])
    loading = Loading(CPU, 4, ranks=ranks)
    found = task.evaluate(Watched(), task.feed("test", loading), loading)
    assert found == {"loss": pytest.approx(whole / 9)}


def test_what_a_task_need_not_say() -> None:
    task = Squares()
    assert task.inputs((1, 2, 3)) == (1, 2)
    assert task.example_batch(2, CPU) is None
    assert task.wanted_by(Weights("net")) is task
    assert task.as_trained({"early_exit": {}}) is task
    assert task.teach(network := Watched(), Weights("net")) is network
    task.check_knows({"num_classes": 3}, "c.pt")
    assert (task.described(), task.identity(None), task.nbytes) == ({}, {}, 0)  # type: ignore[arg-type]
    assert Squares.judged_by() is Squares.metrics
    assert Squares.foreseen(None) is None  # type: ignore[arg-type]
    assert isinstance(Squares.load(None, Weights("net"), count=3), Squares)  # type: ignore[arg-type]
    assert task.fingerprint() == Squares().fingerprint() != Squares(9).fingerprint()


@pytest.mark.parametrize("missing", ["feed", "loss", "example_input"])
def test_what_it_must_say(missing: str) -> None:
    own = {name: getattr(Squares, name) for name in ("feed", "loss", "example_input") if name != missing}
    with pytest.raises(TypeError, match=missing):
        type("Lacking", (Task,), own)()


def test_weights_of_a_checkpoint_are_called_as_the_caller_calls_them() -> None:
    content: Mapping[str, Any] = {"run": {"arch": "simplenet_cifar", "model_args": {"width": 2}}}
    said = Weights.of_checkpoint(content, "c.pt")
    assert (said.arch, said.arguments, said.content, said.where) == ("simplenet_cifar", {"width": 2}, content, "c.pt")
    assert Weights.of_checkpoint(content, "c.pt", "mine:net").arch == "mine:net"
    assert said.pixels.mean is None


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_precision_is_that_of_products(precision: str, dtype: torch.dtype) -> None:
    weight = torch.ones(2, 2)
    with autocast(precision, CPU):
        assert (weight @ weight).dtype is dtype
    with replace(Loading(CPU, 1), precision=precision).autocast():
        assert (weight @ weight).dtype is dtype
    assert (weight @ weight).dtype is torch.float32
