"""The ranges that a search begins with: which weights of a network, in which blocks, and how far each."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill import models
from raydistill.errors import ConfigError
from raydistill.sweep.file.ranges import MOST_DIMENSIONS, Range, ranges, wide


class Mixed(nn.Module):
    """An embedding, a depthwise convolution, an LSTM, a parameter that is no layer's weight, a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)
        self.first = nn.Conv2d(3, 8, 3)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.lstm = nn.LSTM(8, 16)
        self.positions = nn.Parameter(torch.zeros(4, 8))
        self.large = nn.Linear(64, 64)
        self.last = nn.Linear(64, 2)


def test_each_kind_of_layer_has_its_range() -> None:
    found, dense = ranges(Mixed())
    by_name = {one.weights[0]: (one.low, one.high) for one in found}
    assert by_name == {
        "embedding.weight": (0.1, 0.9), "first.weight": (0.0, 0.6), "depthwise.weight": (0.0, 0.5),
        "lstm.weight_ih_l0": (0.2, 0.9), "lstm.weight_hh_l0": (0.4, 0.98), "large.weight": (0.4, 0.98),
        "last.weight": (0.2, 0.9),
    }  # fmt: skip
    assert dense == ["positions"]
    assert {one.name for one in found} == {"agp"}


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["resnet56_cifar", "preact_resnet110_cifar", "mobilenet"])
def test_blocks_hold_every_weight_once_and_are_not_too_many(arch: str) -> None:
    with torch.device("meta"):
        model = models.create(arch, 10)
    found, dense = ranges(model)
    names = [name for one in found for name in one.weights]
    assert sorted(names) == sorted(name for name, p in model.named_parameters() if p.dim() >= 2)
    assert dense == []
    assert 1 < len(found) <= MOST_DIMENSIONS
    assert len({one.name for one in found}) == len(found)
    assert all(one.name.isidentifier() for one in found)


def test_of_few_layers_none_is_the_first_or_the_last() -> None:
    found, _ = ranges(nn.Sequential(nn.Linear(4, 100), nn.Linear(100, 1)))
    assert [(one.low, one.high) for one in found] == [(0.4, 0.98), (0.4, 0.98)]
    with pytest.raises(ConfigError, match="no weight that can be pruned"):
        ranges(nn.Sequential(nn.BatchNorm1d(3)))


def test_a_block_is_pruned_as_far_as_its_largest_layer_bears() -> None:
    """Names go deeper as long as that makes more blocks, and not too many of them."""
    inner = [nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 40)}) for _ in range(14)]
    found, _ = ranges(nn.ModuleDict({"body": nn.Sequential(*inner)}))
    assert [one.name for one in found] == [f"body_{block}" for block in range(14)]
    assert {(one.low, one.high, len(one.weights)) for one in found} == {(0.2, 0.9, 2)}
    assert found[0].note == "2 weights, 7.1 %"


def test_for_a_goal_a_range_begins_at_nothing_and_goes_at_least_to_nine_tenths() -> None:
    said = [Range("agp", ("a",), 0.2, 0.6, "first"), Range("agp", ("b",), 0.4, 0.98, "large")]
    assert wide(said) == [Range("agp", ("a",), 0.0, 0.9, "first"), Range("agp", ("b",), 0.0, 0.98, "large")]
