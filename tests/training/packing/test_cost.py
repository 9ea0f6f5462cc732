"""What packing costs, and how many trials together are fastest."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.datasets import DatasetConfig, load
from raydistill.tasks.classification import Classification
from raydistill.training.packing.cost import TrialBytes, bytes_of_trial, fastest_width, first_batch, fits
from tests.tasks.own import Line, net
from tests.training.packing import nets


@pytest.fixture(scope="module")
def task() -> Classification:
    return Classification(load(DatasetConfig("digits")))


@pytest.mark.slow
def test_a_width_is_measured_and_one_where_nothing_fits(task: Classification) -> None:
    width, rates = fastest_width(nets.single(), task, 16, widths=(2, 4))
    assert width in (1, 2, 4)
    assert {1, 2} <= set(rates)
    assert all(rate > 0 for rate in rates.values())
    assert fastest_width(nets.dropping(), task, 16) == (1, {})


class Wide(nn.Sequential):
    """Has memory for two places at a time."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        weight = self[0].weight
        if weight.dim() == 3 and len(weight) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(rows)  # type: ignore[no-any-return]


def test_a_width_for_which_there_is_no_memory_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydistill.training.packing.cost.GAIN", 0.0)  # any is a gain: what is left is memory
    width, rates = fastest_width(Wide(nn.Linear(6, 1)), Line(), 16)
    assert (width, set(rates)) == (2, {1, 2})


def test_a_width_that_gains_too_little_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydistill.training.packing.cost.GAIN", 1e9)
    width, rates = fastest_width(net(), Line(), 16)
    assert (width, set(rates)) == (1, {1, 2})


def test_what_is_measured_is_a_copy() -> None:
    network = net()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fastest_width(network, Line(), 16, widths=(2,))
    bytes_of_trial(network, Line(), 16)
    fits(network, Line(), 16)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_bytes_grow_with_the_batch_and_not_with_the_weights(task: Classification) -> None:
    small, large = (bytes_of_trial(nets.single(), task, rows) for rows in (64, 128))
    assert small.held == large.held
    assert large.passing == 2 * small.passing


def test_bytes_of_a_small_network_by_hand() -> None:
    """65 weights four times: their gradient, momentum and mask too. A batch of 16 rows leaves behind its inputs (6),
    what the relu gives (8), and of the loss the outputs and what they should be (1 each)."""
    found = bytes_of_trial(net(), Line(), 16)
    assert found.held == 4 * 65 * 4
    assert found.passing == 16 * (6 + 8 + 1 + 1) * 4
    assert TrialBytes(3, 4).total == 7


def test_buffers_are_held_once(task: Classification) -> None:
    network = nets.single()
    weights = sum(parameter.numel() for parameter in network.parameters())
    assert bytes_of_trial(network, task, 16).held == 4 * 4 * weights + 2 * 6 * 4 + 8  # the statistics, and a counter


def test_whether_trials_are_one_network_is_tried_on_a_batch(task: Classification) -> None:
    assert fits(nets.tiny(), task, 64).why == ""
    assert "random numbers" in fits(nets.dropping(), task, 64).why


def test_a_batch_is_of_the_train_split(task: Classification) -> None:
    images, _labels = first_batch(task, 12, torch.device("cpu"))
    assert images.shape == (12, 3, 32, 32)
    (x, _) = first_batch(Line(), 12, torch.device("cpu"))
    train = {tuple(row) for row in Line().splits["train"][0].tolist()}
    assert {tuple(row) for row in x.tolist()} <= train
