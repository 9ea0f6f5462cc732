"""Allocations by rule on a dense network: the Fisher information by hand, and no weights compared for structures."""

from __future__ import annotations

import pytest
import torch

from raydistill import datasets
from raydistill.datasets import DatasetConfig
from raydistill.sweep import rules
from raydistill.sweep.rules import allocations_of, fisher_of
from raydistill.tasks import TRAIN, Loading
from raydistill.tasks.classification import Classification

DIGITS = Classification(datasets.load(DatasetConfig("digits")))


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return DIGITS.network("simplenet_cifar", {})


@pytest.mark.slow
def test_the_information_is_the_mean_square_of_minibatches_gradients() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = fisher_of(model, DIGITS, ["fc2.weight"])["fc2.weight"]
    feed = DIGITS.feed(TRAIN, Loading(torch.device("cpu"), 64))
    squares = []
    for batch, _ in zip(feed.epoch(0), range(rules._FISHER_BATCHES), strict=False):
        images, labels = batch
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        squares.append(torch.autograd.grad(loss, model.fc2.weight)[0].square())
    assert torch.allclose(found, torch.stack(squares).mean(0), rtol=1e-4, atol=1e-9)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.fc2.weight.grad is None


@pytest.mark.slow
def test_weights_are_compared_where_single_ones_count() -> None:
    names = ["conv2.weight", "fc1.weight"]
    assert set(allocations_of(network(), DIGITS, names, "sparsity")) == {
        "lamp",
        "fisher",
        "magnitude",
        "erk",
        "uniform",
    }
    assert set(allocations_of(network(), DIGITS, names, "macs")) == {"uniform"}
