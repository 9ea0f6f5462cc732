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


def times(weight: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return rows @ weight.T


@pytest.mark.parametrize("zero_point", [0.0, 2.0])
def test_one_of_several_goes_up_where_their_sum_wants_it(zero_point: float) -> None:
    """Of 0.1, 0.15, 0.45 and 0.2 steps none would go up by itself; together they are 0.9."""
    parts, step = torch.tensor([[0.1, 0.15, 0.45, 0.2, 0.0]]), 0.5
    grid = Grid(torch.tensor([[step]]), torch.tensor([[zero_point]]), -4, 3)
    inputs = torch.full((2, 5), 2.0)
    weight = parts * step
    up = learn_rounding(
        weight, grid, times, inputs, times(weight, inputs), Learning(steps=60, rate=0.1, rows=4), torch.Generator()
    )
    assert up.tolist() == [[False, False, True, False, False]]
    assert not up.requires_grad
    # two steps lower, numbers below zero go up towards it
    lower = weight - 2 * step
    up = learn_rounding(
        lower, grid, times, inputs, times(lower, inputs), Learning(steps=60, rate=0.1, rows=4), torch.Generator()
    )
    assert up.tolist() == [[False, False, True, False, False]]


def test_without_a_step_every_weight_goes_to_the_nearer_number_and_zero_stays() -> None:
    weight = torch.tensor([[0.3, 0.7, -0.3, -0.7, 0.0, 1.51, 1.49]])
    grid = Grid(torch.ones(1, 1), torch.zeros(1, 1), -4, 3)
    inputs = torch.ones(3, 7)
    up = learn_rounding(weight, grid, times, inputs, times(weight, inputs), Learning(steps=0), torch.Generator())
    assert up.tolist() == [[False, True, True, False, False, True, False]]


def test_what_is_told_of_a_layer_is_measured_and_nothing_is_drawn_from_the_callers_numbers() -> None:
    torch.manual_seed(3)
    model, x = nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 2, bias=False)).eval(), torch.randn(24, 6)
    x[:, 1:] = x[:, :1] + 0.1 * x[:, 1:]
    floats = [layer.weight.detach().clone() for layer in (model[0], model[2])]
    held = PostTrainLinearQuantizer("q", None, 3).find(model, (x,), None).carry_out(model)
    asked = []

    def batches() -> list[tuple[torch.Tensor]]:
        asked.append(1)
        return [(x[:16],), (x[16:],)]

    drawn = torch.random.get_rng_state()
    first, second = round_adaptively(model, held, batches, Learning(steps=80, rate=0.05, most=20))
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert (first.weight, second.weight) == ("0.weight", "2.weight")
    rounded = held.weight("0.weight")
    assert isinstance(rounded, LearnedRounding)
    grid = grid_of(-float(floats[0].abs().max()), float(floats[0].abs().max()), 3, Mode.SYMMETRIC)
    rows = x[:20]
    before = (rows @ (grid.nearest(floats[0]) - floats[0]).T).square().mean()
    after = (rows @ (rounded(floats[0]) - floats[0]).T).square().mean()
    assert first.before == pytest.approx(float(before), rel=1e-4)
    assert first.after == pytest.approx(float(after), rel=1e-4)
    assert first.after < 0.7 * first.before
    assert first.moved == int((rounded.numbers(floats[0]) != grid.numbers(floats[0])).sum()) > 0
    assert torch.equal(model[0].weight, floats[0])
    # the second reads what the first gives now, and is to give what it gave in the float network
    given = (rows @ rounded(floats[0]).T + model[0].bias).relu()
    wanted = (rows @ floats[0].T + model[0].bias).relu() @ floats[1].T
    off = (given @ held.weight("2.weight")(floats[1]).T - wanted).square().mean()
    assert second.after == pytest.approx(float(off.detach()), rel=1e-4)


def test_choices_that_harden_badly_are_dropped_for_the_nearest() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3)).eval(), torch.randn(16, 4)
    weight = model[0].weight.detach().clone()
    held = PostTrainLinearQuantizer("q", None, 4).find(model, (x,), None).carry_out(model)
    nearest = held.weight("0.weight")(weight).detach().clone()
    (learned,) = round_adaptively(model, held, lambda: [(x,)], Learning(steps=1, rate=1000.0))
    assert learned.after == learned.before
    assert learned.moved == 0
    assert torch.allclose(held.weight("0.weight")(weight), nearest)


def test_a_layer_that_runs_twice_is_left_alone_and_convolutions_are_learned_on_patches() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.again, self.conv = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.again(self.again(x)))

    torch.manual_seed(0)
    model, x = Twice().eval(), torch.randn(4, 2, 6, 6)
    held = PostTrainLinearQuantizer("q", None, 3, per_channel_wts=True).find(model, (x,), None).carry_out(model)
    found = list(round_adaptively(model, held, lambda: [(x,)], Learning(steps=60, rate=0.05)))
    assert [one.weight for one in found] == ["conv.weight"]
    assert not isinstance(held.weight("again.weight"), LearnedRounding)
    assert found[0].after < found[0].before
    deep = nn.Sequential(nn.Conv1d(2, 4, 3, groups=2)).eval()
    rows = torch.randn(8, 2, 9)
    held = PostTrainLinearQuantizer("q", None, 3, per_channel_wts=True).find(deep, (rows,), None).carry_out(deep)
    (learned,) = round_adaptively(deep, held, lambda: [(rows,)], Learning(steps=60, rate=0.05))
    assert learned.after <= learned.before
