"""Who holds tensors of a network's shapes hears where it is thinned in mid-run, once and with what to cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydistill.compression import CompressionScheduler, build
from raydistill.compression.policies import Policy
from raydistill.compression.structure import Selection, StructureChange, replay
from raydistill.compression.thinning import thin
from raydistill.schedule import parse_schedule

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3, bias=False))


def steps(model: nn.Module, scheduler: CompressionScheduler, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    scheduler.on_epoch_begin(epoch)
    scheduler.on_minibatch_begin(epoch, 0, 1)
    optimizer.zero_grad()
    model(X).square().sum().backward()
    scheduler.before_parameter_optimization(epoch, 0, 1)
    optimizer.step()
    scheduler.on_minibatch_end(epoch, 0, 1)
    scheduler.on_epoch_end(epoch)


class Average(Policy):
    """An average of the weights, as a policy of one's own would hold it."""

    def __init__(self, model: nn.Module) -> None:
        self.average = {name: value.detach().clone() for name, value in model.named_parameters()}
        self.heard: list[StructureChange] = []

    def on_structure_change(self, happened: StructureChange) -> None:
        self.heard.append(happened)
        happened.follow(self.average)


SCHEDULE = {
    "pruners": {
        "rows": {"class": "RankedPruner", "final_sparsity": 0.5, "rate": "one_shot", "granularity": "Rows",
                 "ranking": "l2", "weights": ["0.weight"]},
        "moved": {"class": "RankedPruner", "final_sparsity": 0.5, "rate": "one_shot", "ranking": "movement",
                  "weights": ["3.weight"]},
    },
    "extensions": {"thinner": {"class": "FilterRemover"}},
    "policies": [
        {"pruner": {"instance_name": "rows"}, "epochs": [0]},
        {"extension": {"instance_name": "thinner"}, "epochs": [2]},
        {"pruner": {"instance_name": "moved"}, "starting_epoch": 1, "ending_epoch": 4, "frequency": 1},
    ],
}  # fmt: skip


@pytest.mark.slow
def test_every_policy_hears_of_it_and_the_scheduler_remembers_how() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = build(parse_schedule({**SCHEDULE, "policies": SCHEDULE["policies"][:2]}, "s"), model, optimizer, (X,))
    average, told = Average(model), []
    scheduler.add(average, 9, 10)  # in no epoch that is run
    scheduler.masks.listeners.append(told.append)
    start = {name: value.numpy().copy() for name, value in average.average.items()}
    for epoch in range(4):
        steps(model, scheduler, optimizer, epoch)
        if epoch == 1:
            kept = np.flatnonzero(scheduler.masks["0.weight"].numpy().any(1))
            assert len(kept) == 3
            assert scheduler.structure == ()
    assert average.heard == told
    assert len(told) == 1
    assert scheduler.structure == (told[0].change,)
    assert scheduler.structure[0].outputs["0"] == Selection(6, tuple(kept.tolist()))
    assert np.array_equal(average.average["0.weight"], start["0.weight"][kept])
    assert np.array_equal(average.average["1.bias"], start["1.bias"][kept])
    assert np.array_equal(average.average["3.weight"], start["3.weight"][:, kept])
    fresh = replay(network(), scheduler.structure)
    fresh.load_state_dict(model.state_dict())
    assert repr(fresh) == repr(model)
    thin(model, scheduler.masks, X)  # takes nothing out
    assert len(told) == 1
    model[0].weight.data[0] = model[1].weight.data[0] = model[1].bias.data[0] = 0.0
    thin(model, scheduler.masks, X)  # by hand, in a loop of one's own
    assert [len(change.outputs["0"].kept) for change in scheduler.structure] == [3, 2]
    assert average.average["0.weight"].shape == model[0].weight.shape == (2, 4)


def test_what_movement_has_added_up_stays_with_the_weights_that_stay() -> None:
    """The thinner acts first in the epoch: the ranking decides on sums of weights that have just been cut."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = build(parse_schedule(SCHEDULE, "s"), model, optimizer, (X,))
    added = np.zeros((3, 6))

    def after_backward(weight: Tensor) -> None:
        added[...] -= (weight * weight.grad).detach().numpy()

    handle = model[3].weight.register_post_accumulate_grad_hook(after_backward)
    for epoch in range(2):
        if epoch == 1:
            added[...] = 0.0  # the policy begins here
        steps(model, scheduler, optimizer, epoch)
    handle.remove()
    kept = np.flatnonzero(scheduler.masks["0.weight"].numpy().any(1))
    scheduler.on_epoch_begin(2)
    assert model[3].weight.shape == (3, 3)
    lowest = np.sort(added[:, kept].ravel())[:4]  # half of 9, floored
    expected = ~np.isin(added[:, kept], lowest)
    assert scheduler.masks["3.weight"].numpy().astype(bool).tolist() == expected.tolist()


def test_only_what_was_cut_follows() -> None:
    happened = StructureChange(None, {"a": lambda tensor: tensor[:1]})  # type: ignore[arg-type]
    tensors = {"a": torch.arange(3), "b": torch.arange(3)}
    happened.follow(tensors)
    assert {name: value.tolist() for name, value in tensors.items()} == {"a": [0], "b": [0, 1, 2]}
