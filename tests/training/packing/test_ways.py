"""Whether networks fit together is found out by trying, in either way."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.datasets import DatasetConfig, load
from raydistill.tasks import TRAIN, Batch, Loading
from raydistill.tasks.classification import Classification
from raydistill.training.packing.ways import Folded, Mapped, check_way
from tests.training.packing import nets


@pytest.fixture(scope="module")
def task() -> Classification:
    return Classification(load(DatasetConfig("digits")))


@pytest.fixture(scope="module")
def batch(task: Classification) -> Batch:
    return next(iter(task.feed(TRAIN, Loading(torch.device("cpu"), 16)).epoch(0)))


@pytest.mark.parametrize(
    ("make", "folded", "mapped"),
    [
        (nets.tiny, "", ""),
        (nets.single, "", ""),
        (nets.mixing, "gets a gradient from another network's loss", ""),
        (nets.dropping, "it draws random numbers", "it draws random numbers"),
        (nets.deciding, "what it computes depends on the data", "RuntimeError"),
    ],
)
def test_what_fits(make: type[nn.Module], folded: str, mapped: str, task: Classification, batch: Batch) -> None:
    network = make()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for way, expected in ((Folded, folded), (Mapped, mapped)):
        why, used = check_way(way(network), network, task, batch, "fp32")
        assert (expected in why) if expected else why == "", why
        if not why:
            assert used == frozenset(dict(network.named_parameters()))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_layer_that_is_never_used_gets_no_gradient(task: Classification, batch: Batch) -> None:
    network = nets.tiny()
    network.spare = nn.Linear(3, 3).double()
    why, used = check_way(Folded(network), network, task, batch, "fp32")
    assert why == ""
    assert used == frozenset(name for name, _ in network.named_parameters() if not name.startswith("spare"))
