"""Penalties on structures of several layers: their formulas, and that what is to go goes to zero by them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression import build
from raydistill.compression.masks import MaskSet
from raydistill.compression.pruners import CoupledPruner, Moment
from raydistill.compression.rates import PolicyTime
from raydistill.compression.regularizers import CoupledGroupLassoRegularizer, GrowingRegularizer, Regularizer
from raydistill.compression.thinning import thin
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule
from tests.compression.pruners.test_coupled import net

WEIGHTS = ["a.weight", "b.weight", "hidden.weight"]


def bound(regularizer: Regularizer) -> tuple[nn.Module, Tensor, dict[str, Tensor]]:
    model, x = net()
    regularizer.bind(model, (x,))
    return model, x, {name: model.get_parameter(name) for name in regularizer.weights}


def test_a_structures_parts_have_one_norm_together() -> None:
    regularizer = CoupledGroupLassoRegularizer("r", 0.5, WEIGHTS)
    model, _, weights = bound(regularizer)
    channels = torch.stack([
        model.a.weight.square().sum((1, 2, 3)),
        model.b.weight.square().sum((1, 2, 3)),
        model.b.weight.square().sum((0, 2, 3)),
        model.hidden.weight.square().view(24, 8, 16).sum((0, 2)),
    ]).sum(0)  # fmt: skip
    neurons = model.hidden.weight.square().sum(1) + model.out.weight.square().sum(0)
    expected = 1.0 + 0.5 * (channels.sqrt().sum() + neurons.sqrt().sum())
    loss = regularizer.loss(weights, torch.tensor(1.0))
    torch.testing.assert_close(loss, expected)
    for weight in weights.values():  # a structure of zeros has no direction
        weight.data.zero_()
    regularizer.loss(weights, torch.tensor(1.0)).backward()
    assert all(not bool(weight.grad.any()) for weight in weights.values())


def test_the_penalty_grows_on_what_is_to_go_alone() -> None:
    regularizer = GrowingRegularizer("r", 0.5, WEIGHTS, penalty_step=0.25, every=2, ceiling=0.6)
    model, x, weights = bound(regularizer)
    pruner = CoupledPruner("p", 0.5, WEIGHTS)
    pruner.bind(model, (x,))
    masks = pruner.masks({name: weight.detach() for name, weight in weights.items()}, Moment(PolicyTime(9, 0, 10, 1)))
    squares = sum(float((weight * (masks[name] == 0)).square().sum()) for name, weight in weights.items())
    found = [float(regularizer.loss(weights, torch.tensor(0.0))) for _ in range(6)]
    assert found == pytest.approx([0.5 * squares * penalty for penalty in (0.25, 0.25, 0.5, 0.5, 0.6, 0.6)])
    other = GrowingRegularizer("r", 0.5, WEIGHTS, penalty_step=0.25, every=2, ceiling=0.6)
    other.bind(model, (x,))
    other.load_state_dict(regularizer.state_dict())
    with torch.no_grad():
        model.a.weight.mul_(torch.randn(8, 1, 1, 1))  # others would be chosen now
    assert torch.equal(other.loss(weights, torch.tensor(0.0)), regularizer.loss(weights, torch.tensor(0.0)))


def schedule(regularizer: dict[str, Any]) -> Any:
    return parse_schedule(
        {
            "regularizers": {"r": {"weights": WEIGHTS, **regularizer}},
            "policies": [{"regularizer": {"instance_name": "r"}, "epochs": [0]}],
        },
        "s.yaml",
    )


def trained(regularizer: dict[str, Any], steps: int = 60) -> tuple[nn.Module, Tensor]:
    model, x = net()
    model.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = build(schedule(regularizer), model, optimizer, (x,))
    target = model(x).detach() + 0.1
    scheduler.on_epoch_begin(0)
    for index in range(steps):
        optimizer.zero_grad()
        scheduler.on_minibatch_begin(0, index, steps)
        loss = (model(x) - target).square().mean()
        scheduler.before_backward(0, index, steps, loss).backward()
        optimizer.step()
        scheduler.on_minibatch_end(0, index, steps)
    return model, x


@pytest.mark.slow
def test_what_was_to_go_is_nearly_nothing_once_it_is_pruned() -> None:
    lost = {}
    growing = {"class": "GrowingRegularizer", "penalty_step": 0.1, "every": 1, "ceiling": 4.0}
    plain = {"class": "CoupledGroupLassoRegularizer", "strength": 0.0}
    for name, regularizer in (("grown", {**growing, "final_sparsity": 0.5}), ("plain", plain)):
        model, x = trained(regularizer)
        before = model(x).detach()
        pruner, masks = CoupledPruner("p", 0.5, WEIGHTS), MaskSet(model)
        pruner.bind(model, (x,))
        weights = {own: model.get_parameter(own).data for own in pruner.weights}
        for own, mask in pruner.masks(weights, Moment(PolicyTime(9, 0, 10, 1))).items():
            masks.set(own, mask)
        masks.apply()
        lost[name] = float((model(x).detach() - before).abs().max() / before.abs().max())
        thin(model, masks, x)
        assert model.out.weight.shape == (4, 12)
    assert lost["grown"] < 0.05 * lost["plain"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CoupledGroupLassoRegularizer", "GrowingRegularizer"])
def test_it_goes_on_where_the_network_is_thinned(name: str) -> None:
    model, x = net()
    arguments = {"strength": 1.0} if name.startswith("Coupled") else {"final_sparsity": 0.5}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scheduler = build(schedule({"class": name, **arguments}), model, optimizer, (x,))
    scheduler.before_backward(0, 0, 2, torch.tensor(0.0))
    with torch.no_grad():
        model.hidden.weight[:6] = 0
        model.hidden.bias[:6] = 0
        model.out.weight[:, :6] = 0
    thin(model, scheduler.masks, x, optimizer)
    assert model.hidden.weight.shape[0] == 18
    loss = scheduler.before_backward(0, 1, 2, torch.tensor(0.0))
    loss.backward()
    assert float(loss) > 0
    assert model.hidden.weight.grad.shape == (18, 128)


LASSO = {"class": "CoupledGroupLassoRegularizer", "strength": 1.0}
GROWING = {"class": "GrowingRegularizer", "final_sparsity": 0.5}


@pytest.mark.parametrize(
    ("regularizer", "says"),
    [
        ({**LASSO, "strength": -1}, "r.strength: must be at least 0, got -1"),
        ({**GROWING, "ranking": "taylor"}, "r.ranking: must rank by the weights alone, got 'taylor'"),
        ({**GROWING, "every": 0}, "r.every: must be a whole number"),
        ({**GROWING, "final_sparsity": 1.5}, "r.final_sparsity: must be a fraction"),
        ({**LASSO, "structures": "Heads"}, "r.weights: write no Heads"),
        ({**LASSO, "weights": ["a.wieght"]}, "no such weight, got 'a.wieght'"),
    ],
)
def test_faults(regularizer: dict[str, Any], says: str) -> None:
    model, x = net()
    with pytest.raises(ConfigError, match=says):
        build(schedule(regularizer), model, torch.optim.SGD(model.parameters(), lr=0.1), (x,))
