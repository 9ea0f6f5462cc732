"""Plain training in place, against a loop by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from raydistill.tasks import TRAIN, Loading
from raydistill.training import RunConfig
from raydistill.training.fine_tune import fine_tune
from tests.tasks.own import Line, net

CPU = torch.device("cpu")


@pytest.mark.slow
def test_it_is_the_loop_by_hand() -> None:
    torch.manual_seed(0)
    model, task = net(), Line()
    config = RunConfig("mine:net", batch_size=8, lr=0.05, momentum=0.5, weight_decay=0.01, seed=3)
    by_hand = copy.deepcopy(model)
    optimizer = torch.optim.SGD(by_hand.parameters(), 0.05, momentum=0.5, weight_decay=0.01)
    for epoch in range(2):
        for batch in task.feed(TRAIN, Loading(CPU, 8, 3)).epoch(epoch):
            optimizer.zero_grad()
            task.loss(by_hand, batch).backward()
            optimizer.step()
    before = [value.clone() for value in model.parameters()]
    fine_tune(model, config, task, CPU, 2)
    assert not any(map(torch.equal, before, model.parameters()))
    for own, expected in zip(model.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(own, expected, atol=1e-6)
    assert not model.training


def test_no_epochs_leave_it_as_it_is_and_zeros_may_come_back() -> None:
    torch.manual_seed(0)
    model, task, config = net(), Line(), RunConfig("mine:net", batch_size=8, lr=0.05)
    before = copy.deepcopy(model.state_dict())
    fine_tune(model, config, task, CPU, 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    layer = next(module for module in model.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        layer.weight[:, 0] = 0.0
    fine_tune(model, config, task, CPU, 1)
    assert bool(layer.weight[:, 0].any())
