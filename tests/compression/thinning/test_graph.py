"""What of a network may go, and why the rest may not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.thinning.graph import drop_hooks, set_training, trace


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Linear(3, 3), nn.BatchNorm1d(3)
        self.b, self.c, self.d = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.e = nn.Linear(2, 2)
        self.offset = nn.Parameter(torch.ones(4))
        self.c.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.a(x)) + x
        y = self.b(torch.relu(y)) * self.offset
        return self.e(self.d(self.c(y)))


def test_each_reason_is_said() -> None:
    graph = trace(Net(), torch.randn(2, 3))
    reasons = {m.layer: group.blocked for group in graph.groups for m in group.side("out")}
    assert reasons == {
        "a": "coupled with an input of the network",
        "b": "coupled with a parameter outside any layer",
        "c": None,
        "d": None,
        "e": "an output of the network",
    }
    assert graph.norm_after == {"a": "norm"}


def test_layers_that_share_a_weight_stay() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    model[2].weight = model[0].weight
    reasons = {m.layer: group.blocked for group in trace(model, torch.randn(1, 3)).groups for m in group.side("out")}
    assert reasons["0"] is not None
    assert reasons["0"].endswith("shares its weight")


def test_containers_train_while_norms_and_dropout_do_not() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), nn.BatchNorm1d(2))
    set_training(model, True)
    assert [module.training for module in model.modules()] == [True, True, False, False, False]
    set_training(model, False)
    assert not any(module.training for module in model.modules())


def test_hooks_are_forgotten() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].register_forward_hook(lambda *_: pytest.fail("it is called"))
    model.register_forward_pre_hook(lambda *_: pytest.fail("it is called"))
    drop_hooks(model)
    model(torch.zeros(1, 2))
