"""Adapters learn, and nothing else; masks stay exact; a run that goes on has them still."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from raydistill.compression import CompressionScheduler, build
from raydistill.compression.low_rank import LowRankRecovery, adapter_of
from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.base import Step
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule
from raydistill.training import fit, read_checkpoint
from tests.training.packing.members import TASK, config

ROWS = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
WANTED = torch.randn(16, 2, generator=torch.Generator().manual_seed(2))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def scheduler_of(model: nn.Module, optimizer: torch.optim.Optimizer, epochs: str = "1, 2", **said: object) -> Any:
    """Half of two weights goes in epoch 0; then adapters learn."""
    weights = ["0.weight", "3.weight"]
    spec = parse_schedule(
        {
            "pruners": {"half": {"class": "SparsityLevelParameterPruner", "levels": dict.fromkeys(weights, 0.5)}},
            "extensions": {"recovery": {"class": "LowRankRecovery", "rank": 2, "lr": 0.02, **said}},
            "policies": [
                {"pruner": {"instance_name": "half"}, "epochs": [0]},
                {"extension": {"instance_name": "recovery"}, "epochs": [int(each) for each in epochs.split(", ")]},
            ],
        },
        "s.yaml",
    )
    return build(spec, model, optimizer)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: CompressionScheduler, epoch: int, steps: int = 5
) -> float:
    model.train()
    scheduler.on_epoch_begin(epoch)
    for index in range(steps):
        scheduler.on_minibatch_begin(epoch, index, steps)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(ROWS), WANTED)
        scheduler.before_backward(epoch, index, steps, loss).backward()
        scheduler.before_parameter_optimization(epoch, index, steps)
        optimizer.step()
        scheduler.on_minibatch_end(epoch, index, steps)
    scheduler.on_epoch_end(epoch, top1=0.0)
    return float(loss.detach())


def of(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.slow
def test_adapters_learn_on_what_is_left_and_all_else_stands_still() -> None:
    model = network()
    optimizer = adam(model)
    scheduler = scheduler_of(model, optimizer)
    train(model, optimizer, scheduler, 0)
    before = of(model)
    first = train(model, optimizer, scheduler, 1, steps=1)
    last = train(model, optimizer, scheduler, 2, steps=40)
    assert last < 0.9 * first
    after = of(model)
    for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
        assert torch.equal(after[name], before[name]), "weight decay and momentum included"
    for name in ("0.weight", "3.weight"):
        kept = scheduler.masks[name].bool()
        assert int((after[name] == 0).sum()) == int((~kept).sum()) == kept.numel() // 2
        assert not torch.equal(after[name], before[name])
        added = torch.linalg.matrix_rank(_whole(scheduler, name))
        assert int(added) == 2


def _whole(scheduler: CompressionScheduler, name: str) -> Tensor:
    """What an adapter adds, before the mask."""
    adapter = recovery(scheduler).adapters[name]
    return (adapter.up @ adapter.down).detach()


def recovery(scheduler: CompressionScheduler) -> LowRankRecovery:
    found = scheduler.scheduled[1].policy
    assert isinstance(found, LowRankRecovery)
    return found


def test_gradients_of_the_two_are_those_that_autograd_finds() -> None:
    model = network().eval()
    mask = (torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    adapter = adapter_of(model[0].weight, 3, 0)
    with torch.no_grad():
        adapter.up.normal_()

    def loss(weight: Tensor) -> Tensor:
        return nn.functional.mse_loss(functional_call(model, {"0.weight": weight}, ROWS), WANTED)

    weight = adapter.merged(0.7, mask)
    wanted = torch.autograd.grad(loss(weight), (adapter.up, adapter.down), retain_graph=True)
    with torch.no_grad():
        alone = weight.clone()
    (gradient,) = torch.autograd.grad(loss(alone.requires_grad_()), alone)
    with torch.no_grad():
        adapter.take_gradient(gradient, 0.7, mask)
    torch.testing.assert_close((adapter.up.grad, adapter.down.grad), wanted)


def test_a_convolution_is_a_matrix_and_the_rank_no_more_than_it_has() -> None:
    adapter = adapter_of(torch.randn(4, 3, 2, 2), 9, 0)
    assert (adapter.up.shape, adapter.down.shape) == ((4, 4), (4, 12))
    assert torch.equal(adapter.merged(2.0, None), adapter.base), "it adds nothing yet"


@pytest.mark.slow
def test_a_run_that_goes_on_is_one_that_was_never_interrupted() -> None:
    def halfway() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
        model = network()
        optimizer = adam(model)
        scheduler = scheduler_of(model, optimizer)
        for epoch in (0, 1):
            train(model, optimizer, scheduler, epoch)
        return model, optimizer, scheduler

    model, optimizer, scheduler = halfway()
    state: Mapping[str, Any] = copy.deepcopy(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    )
    train(model, optimizer, scheduler, 2)
    again = network()
    own = adam(again)
    going = scheduler_of(again, own)
    again.load_state_dict(state["model"])
    own.load_state_dict(state["optimizer"])
    going.load_state_dict(state["scheduler"])
    train(again, own, going, 2)
    torch.testing.assert_close(of(again), of(model), rtol=0, atol=0)
    without = network()
    own = adam(without)
    going = scheduler_of(without, own)
    without.load_state_dict(state["model"])
    going.masks.load_state_dict(state["scheduler"]["masks"])
    train(without, own, going, 2)
    assert not torch.equal(without[0].weight, model[0].weight), "the adapters are what goes on"


@pytest.mark.slow
def test_a_run_that_is_resumed_from_its_checkpoint(tmp_path: Path) -> None:
    spec = parse_schedule(
        {
            "pruners": {"half": {"class": "SparsityLevelParameterPruner", "levels": {"0.weight": 0.5}}},
            "extensions": {"recovery": {"class": "LowRankRecovery", "rank": 2, "lr": 0.05}},
            "policies": [
                {"pruner": {"instance_name": "half"}, "epochs": [0]},
                {"extension": {"instance_name": "recovery"}, "epochs": [0, 1, 2]},
            ],
        },
        "s.yaml",
    )
    whole = config(schedule=spec, out_dir=str(tmp_path / "whole"))
    assert len(list(fit(whole, task=TASK))) == 3
    parts = config(schedule=spec, out_dir=str(tmp_path / "parts"))
    begun = fit(parts, task=TASK)
    next(begun), next(begun)
    begun.close()
    assert [metrics.epoch for metrics in fit(parts, task=TASK)] == [2]
    first, second = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    for name, value in first["model"].items():
        assert torch.equal(second["model"][name], value), name
    kept = first["scheduler"]["policies"][1]["adapters"]["0.weight"]
    assert kept["up"].any()
    assert int((first["model"]["0.weight"] == 0).sum()) == first["model"]["0.weight"].numel() // 2


def test_a_weight_that_is_pruned_further_keeps_its_adapter_and_one_that_is_changed_is_begun_from() -> None:
    model = network()
    optimizer = adam(model)
    scheduler = scheduler_of(model, optimizer)
    for epoch in (0, 1):
        train(model, optimizer, scheduler, epoch)
    adapter = recovery(scheduler).adapters["0.weight"]
    mask = scheduler.masks["0.weight"].clone()
    mask[:, :3] = 0
    scheduler.masks.set("0.weight", mask)
    scheduler.masks.apply()
    train(model, optimizer, scheduler, 2)
    assert recovery(scheduler).adapters["0.weight"] is adapter
    assert not model[0].weight[:, :3].any()
    assert model[0].weight[:, 3:].any()
    with torch.no_grad():
        model[0].weight.mul_(1.5)
    now = model[0].weight.detach().clone()
    scheduler.on_epoch_begin(2)
    scheduler.on_minibatch_begin(2, 0, 1)
    assert torch.equal(recovery(scheduler).adapters["0.weight"].base, now)
    assert torch.equal(model[0].weight, now)


def test_one_weight_that_is_named_while_the_others_are_trained_as_ever() -> None:
    model = network()
    optimizer = adam(model)
    scheduler = scheduler_of(model, optimizer, weights=["3.weight"], train_others=True)
    train(model, optimizer, scheduler, 0)
    before = of(model)
    train(model, optimizer, scheduler, 1)
    assert list(recovery(scheduler).adapters) == ["3.weight"]
    assert all(not torch.equal(value, before[name]) for name, value in of(model).items())
    assert recovery(scheduler).says(scheduler.scheduled[1].when(1)) == "trains adapters of 1 weight, rank 2"


def test_a_look_at_minibatches_teaches_nothing_and_an_overflow_is_left_out() -> None:
    model = network()
    optimizer = adam(model)
    scheduler = scheduler_of(model, optimizer)
    train(model, optimizer, scheduler, 0)
    scheduler.on_epoch_begin(1)
    scheduler.on_minibatch_begin(1, 0, 1)
    before = of(model)
    for training, factor in ((False, 1.0), (True, float("inf"))):
        model.train(training)
        optimizer.zero_grad()
        (model(ROWS).sum() * factor).backward()
        recovery(scheduler).before_parameter_optimization(Step(1, 0, 1))
        recovery(scheduler).on_minibatch_end(Step(1, 0, 1))
        torch.testing.assert_close(of(model), before, rtol=0, atol=0)
        assert model[0].weight.grad is not None, "gradients are given back"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rank": 0}, "rank: must be a whole number from 1 up, got 0"),
        ({"alpha": -1}, "alpha: must be at least 0"),
        ({"train_others": 1}, "train_others: must be true or false"),
        ({"weights": ["0.wieght"]}, "did you mean '0.weight'"),
        ({"weights": ["0.bias"]}, "must have two or more dimensions"),
    ],
)
def test_what_cannot_be(said: dict[str, Any], message: str) -> None:
    model = network()
    with pytest.raises(ConfigError, match=message):
        LowRankRecovery("r", **said).bind(model, adam(model), MaskSet(model), None)
