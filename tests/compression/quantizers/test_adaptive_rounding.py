"""Learned rounding: a case whose best choice is known by trying all, and networks of layers of every kind."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from raydistill.compression.quantizers.adaptive_rounding import Learning, learn_rounding, round_adaptively
from raydistill.compression.quantizers.grid import Grid, Mode, grid_of
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.plan import plan_of
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.quantizers.weights import LearnedRounding


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_it_finds_the_best_of_all_choices_or_the_second_best(seed: int) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(1, 8)
    weight[0, 3] = 0.0
    grid = grid_of(-2.0, 2.0, 3, Mode.SYMMETRIC)
    inputs = torch.randn(200, 1) + 0.2 * torch.randn(200, 8)  # which go together, so that errors can cancel
    outputs = inputs @ weight.T

    def error(up: torch.Tensor) -> float:
        rounded = grid.values((torch.floor(weight / grid.scale) + up).clamp(grid.low, grid.high))
        return float((inputs @ rounded.T - outputs).square().mean())

    found = learn_rounding(
        weight, grid, lambda own, rows: rows @ own.T, inputs, outputs, Learning(steps=600), torch.Generator()
    )
    assert not bool(found[0, 3])
    choices = [error(torch.tensor([choice], dtype=torch.float32)) for choice in itertools.product((0, 1), repeat=8)]
    nearest = float((inputs @ grid.nearest(weight).T - outputs).square().mean())
    assert error(found.float()) < 0.6 * nearest
    assert sum(choice < error(found.float()) - 1e-9 for choice in choices) <= 2  # a zero may go up in these


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.deep = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.up, self.fc = nn.ConvTranspose2d(8, 4, 2), nn.Linear(4 * 7 * 7, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.up(torch.relu(self.deep(torch.relu(self.conv(x))))))
        return self.fc(y.flatten(1))


X = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def quantized() -> tuple[Layers, Quantization, torch.Tensor]:
    torch.manual_seed(0)
    model = Layers().eval()
    model.fc.weight.data[:, ::2] = 0.0
    with torch.no_grad():
        expected = model(X)
    held = PostTrainLinearQuantizer("q", None, 3, per_channel_wts=True).find(model, (X[:1],), None).carry_out(model)
    return model, held, expected


@pytest.mark.slow
def test_each_layers_error_falls_the_networks_too_and_zero_stays() -> None:
    model, held, expected = quantized()
    with torch.no_grad():
        before = float((model(X) - expected).square().mean())
    learned = list(round_adaptively(model, held, lambda: [(X[:32],), (X[32:],)], Learning(steps=400)))
    assert [one.weight for one in learned] == ["conv.weight", "deep.weight", "up.weight", "fc.weight"]
    assert all(one.after <= one.before for one in learned)
    assert sum(one.moved for one in learned) > 0
    with torch.no_grad():
        after = float((model(X) - expected).square().mean())
        assert after < 0.8 * before
        assert int((held.weight("fc.weight")(model.fc.weight)[:, ::2] != 0).sum()) == 0


@pytest.mark.slow
def test_the_plan_and_the_state_make_it_again() -> None:
    model, held, _ = quantized()
    list(round_adaptively(model, held, lambda: [(X,)], Learning(steps=20)))
    torch.manual_seed(0)
    again = Layers().eval()
    plan_of(held).carry_out(again)
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(again(X), model(X))


@pytest.mark.slow
def test_it_is_the_same_twice() -> None:
    found = []
    for _ in range(2):
        model, held, _ = quantized()
        list(round_adaptively(model, held, lambda: [(X,)], Learning(steps=30)))
        found.append(held.weight("conv.weight")(model.conv.weight))
    assert torch.equal(*found)


def test_weights_that_are_shared_are_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x))

    model = Tied().eval()
    x = torch.randn(8, 4)
    held = PostTrainLinearQuantizer("q", None, 3).find(model, (x,), None).carry_out(model)
    assert list(round_adaptively(model, held, lambda: [(x,)], Learning(steps=2))) == []


def test_the_kind_rounds_up_where_it_is_told() -> None:
    quantizer = LearnedRounding(3, -4, 3, [1, 1], [1, 3])
    quantizer.take(Grid(torch.tensor([[0.5]]), torch.zeros(1, 1), -4, 3), torch.tensor([[True, False, True]]))
    weight = torch.tensor([[0.6, 0.9, -0.7]], requires_grad=True)
    rounded = quantizer(weight)
    assert rounded.tolist() == [[1.0, 0.5, -0.5]]
    rounded.sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0, 1.0, 1.0]]
    assert quantizer.described()["weight_shape"] == [1, 3]
    with pytest.raises(RuntimeError):
        quantizer(torch.ones(2, 5))
