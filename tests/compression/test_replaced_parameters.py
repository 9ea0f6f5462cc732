"""Parameters may be replaced after `build`: that is noticed once an epoch and followed or refused, never ignored."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from raydistill.compression import CompressionScheduler, build, sparsity
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def scheduler_of(model: nn.Module, epochs: list[int], **args: Any) -> CompressionScheduler:
    mapping = {
        "pruners": {"p": {"class": "SparsityLevelParameterPruner", "levels": {"0.weight": 0.5, "2.weight": 0.5}}},
        "policies": [{"pruner": {"instance_name": "p", "args": args}, "epochs": epochs}],
    }
    return build(parse_schedule(mapping, "s.yaml"), model, torch.optim.SGD(model.parameters(), lr=0.1))


def train_epoch(model: nn.Module, scheduler: CompressionScheduler, epoch: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler.on_epoch_begin(epoch)
    for index in range(3):
        scheduler.on_minibatch_begin(epoch, index, 3)
        loss = scheduler.before_backward(epoch, index, 3, model(torch.randn(16, 8)).square().mean())
        optimizer.zero_grad()
        loss.backward()
        scheduler.before_parameter_optimization(epoch, index, 3)
        optimizer.step()
        scheduler.on_minibatch_end(epoch, index, 3)
    scheduler.on_epoch_end(epoch, loss=1.0)


def new_head(model: nn.Sequential) -> None:
    model[2] = nn.Linear(8, 4)


def assigned(model: nn.Sequential) -> None:
    model.load_state_dict({k: torch.randn_like(v) for k, v in model.state_dict().items()}, assign=True)


def other_values(model: nn.Sequential) -> None:
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)


def wider_and_back(model: nn.Sequential) -> None:
    model.double().float()


REPLACED = [new_head, assigned, other_values, wider_and_back]


@pytest.mark.parametrize("replace", REPLACED)
@pytest.mark.parametrize("decided", ["before", "after"])
def test_masks_follow(replace: Callable[[nn.Sequential], None], decided: str) -> None:
    model = network()
    scheduler = scheduler_of(model, [0] if decided == "before" else [1])
    train_epoch(model, scheduler, 0)
    replace(model)
    train_epoch(model, scheduler, 1)
    assert sparsity(model)[0] == 0.5
    for name in ("0.weight", "2.weight"):
        assert scheduler.masks.parameter(name) is model.get_parameter(name)
        assert torch.equal(scheduler.masks[name] == 0, model.get_parameter(name) == 0)


def test_forward_only_masks_stay_so() -> None:
    model = network()
    scheduler = scheduler_of(model, [0, 1, 2], mask_on_forward_only=True)
    train_epoch(model, scheduler, 0)
    new_head(model)
    train_epoch(model, scheduler, 1)
    assert scheduler.masks.forward_only() == ["0.weight", "2.weight"]


@pytest.mark.parametrize("decided", [[0], [1]])
def test_another_shape_stops(decided: list[int]) -> None:
    model = network()
    scheduler = scheduler_of(model, decided)
    train_epoch(model, scheduler, 0)
    model[2] = nn.Linear(8, 5)
    with pytest.raises(ConfigError, match=r"2\.weight: is of shape \(5, 8\), it had another .*; build the scheduler"):
        scheduler.on_epoch_begin(1)


@pytest.mark.parametrize("decided", [[0], [1]])
def test_one_that_is_gone_stops(decided: list[int]) -> None:
    model = network()
    scheduler = scheduler_of(model, decided)
    train_epoch(model, scheduler, 0)
    model[2] = nn.Identity()
    with pytest.raises(ConfigError, match=r"2\.weight: is gone from the model"):
        scheduler.on_epoch_begin(1)


def test_nothing_replaced_changes_nothing() -> None:
    model = network()
    scheduler = scheduler_of(model, [0])
    train_epoch(model, scheduler, 0)
    before, changes = copy.deepcopy(model.state_dict()), scheduler.masks.changes
    scheduler.on_epoch_begin(1)
    assert scheduler.masks.changes == changes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_a_lottery_ticket_is_cut_where_filters_are_removed() -> None:
    """What it remembers from the beginning keeps the shapes of the model that it goes back into."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)
    )
    start = copy.deepcopy(model.state_dict())
    mapping = {
        "pruners": {
            "filters": {"class": "L1RankedStructureParameterPruner", "group_type": "Filters", "desired_sparsity": 0.5,
                        "weights": ["0.weight"]},
            "ticket": {"class": "LotteryTicketPruner", "weights": ["3.weight"], "fraction": 0.5},
        },
        "extensions": {"remover": {"class": "FilterRemover", "thinning_func_str": "remove_filters"}},
        "policies": [
            {"pruner": {"instance_name": "ticket"}, "starting_epoch": 0, "ending_epoch": 5, "frequency": 2},
            {"pruner": {"instance_name": "filters"}, "epochs": [1]},
            {"extension": {"instance_name": "remover"}, "epochs": [3]},
        ],
    }  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = build(parse_schedule(mapping, "s.yaml"), model, optimizer, (torch.randn(1, 3, 1, 1),))
    kept: list[int] = []
    for epoch in range(5):
        scheduler.on_epoch_begin(epoch)
        if epoch == 3:
            state = copy.deepcopy(scheduler.state_dict())
            assert state["policies"][0]["early"]["0.weight"].shape == model[0].weight.shape == (4, 3, 1, 1)
            kept = [int((start["0.weight"] == row).flatten(1).all(1).nonzero()) for row in
                    state["policies"][0]["early"]["0.weight"]]  # fmt: skip
        if epoch == 4:  # it has gone back just now
            assert torch.equal(model[0].weight, start["0.weight"][kept])
            assert torch.equal(model[1].running_var, start["1.running_var"][kept])
            mask = scheduler.masks["3.weight"]
            assert torch.equal(model[3].weight, start["3.weight"][:, kept] * mask)
        optimizer.zero_grad()
        model(torch.randn(16, 3, 1, 1)).square().mean().backward()
        optimizer.step()
        scheduler.on_minibatch_end(epoch, 0, 1)
        scheduler.on_epoch_end(epoch, loss=1.0)
    assert len(kept) == 4


@pytest.mark.parametrize("kind", ["gradient", "", "activations", None])
def test_evidence_of_an_unknown_kind_is_refused(kind: Any) -> None:
    from raydistill.compression.adjacency import Adjacency
    from raydistill.compression.evidence import gatherer
    from raydistill.compression.masks import MaskSet

    model = network()
    with pytest.raises(ConfigError, match=f"evidence of an unknown kind, got {kind!r}"):
        gatherer(kind, ["0.weight"], model, MaskSet(model), Adjacency(model, None))
