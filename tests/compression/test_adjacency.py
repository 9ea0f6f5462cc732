from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression import build
from raydistill.compression.adjacency import Adjacency
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule

IMAGE = torch.zeros(2, 3, 5, 5)


class Net(nn.Module):
    """How a batch norm can stand behind a layer, and how it can seem to."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.plain_norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.inner = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.Identity())
        self.inner_norm = nn.BatchNorm2d(4)
        self.rectified, self.rectified_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.summed, self.summed_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.grown, self.grown_norm = nn.ConvTranspose2d(4, 4, 1), nn.BatchNorm2d(4)
        self.grouped, self.group_norm = nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)
        self.fc, self.fc_norm = nn.Linear(4, 3), nn.BatchNorm1d(3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        assert not self.training
        x = self.inner_norm(self.inner(self.plain_norm(self.plain(x)).relu()))
        x = self.rectified_norm(torch.relu_(self.rectified(x)))  # the same tensor, not the same values
        y = self.summed(x)
        y += x
        x = self.group_norm(self.grouped(self.grown_norm(self.grown(self.summed_norm(y)))))
        return self.fc_norm(self.fc(x.mean((2, 3))))


def test_a_batch_norm_reads_a_layer_directly_or_not() -> None:
    assert Adjacency(Net(), (IMAGE,)).batch_norms("who") == {
        "plain": "plain_norm",
        "inner.0": "inner_norm",
        "fc": "fc_norm",
    }


def test_a_layer_that_is_used_twice_has_the_norm_that_reads_it_last() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.conv(self.first(self.conv(x))))

    assert Adjacency(Twice(), (IMAGE,)).batch_norms("who") == {"conv": "second"}


def test_it_is_found_out_once_for_all_policies_and_only_if_one_asks() -> None:
    pruner = {"class": "RankedPruner", "final_sparsity": 0.5, "granularity": "Filters", "weights": ["plain.weight"]}
    policies = [
        {"pruner": {"instance_name": name, "args": args}, "epochs": [epoch]}
        for epoch, (name, args) in enumerate([("scale", {}), ("l1", {"fold_batchnorm": True}), ("l1", {})])
    ]
    for chosen, calls in ((policies, 1), (policies[2:], 0)):
        model = Net()
        mapping = {
            "pruners": {"l1": {**pruner, "ranking": "l1"}, "scale": {**pruner, "ranking": "bn_scale"}},
            "policies": chosen,
        }
        build(parse_schedule(mapping, "s"), model, torch.optim.SGD(model.parameters(), lr=0.1), (IMAGE,))
        assert model.calls == calls
        assert model.training


def test_without_an_input_or_on_a_wrong_one_it_is_a_line() -> None:
    with pytest.raises(ConfigError, match="fold_batchnorm: needs an example input of the model; pass example_input"):
        Adjacency(Net(), None).batch_norms("fold_batchnorm")
    with pytest.raises(ConfigError, match=r"example input: the model does not run on it .*got \[\(1, 5, 4, 4\)\]"):
        Adjacency(Net(), (torch.zeros(1, 5, 4, 4),)).batch_norms("fold_batchnorm")
