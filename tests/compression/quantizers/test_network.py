"""A network with rounded weights and activations: any way of writing it; what a forward pass leaves behind."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from raydistill.compression.floats import as_floats
from raydistill.compression.quantizers.activations import (
    Accumulator,
    ActivationQuantizer,
    FixedClip,
    FixedGrid,
    LearnedClip,
)
from raydistill.compression.quantizers.grid import Grid, Mode, grid_of
from raydistill.compression.quantizers.network import Quantization, attach, detach, modes_kept, quantization_of
from raydistill.compression.quantizers.points import ACCUMULATOR, Point
from raydistill.compression.quantizers.weights import FixedWeight, LinearWeight
from raydistill.errors import ConfigError


class Times(ActivationQuantizer):
    """Stands for a quantizer: what it is given, times a number, which can be told from outside."""

    def __init__(self, factor: float) -> None:
        super().__init__(8)
        self.factor, self.seen = factor, 0

    def grid(self) -> None:
        return None

    def forward(self, values: Tensor) -> Tensor:
        self.seen += 1
        return values * self.factor


class Double(LinearWeight):
    """Stands for a weight's quantizer."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.fc(x))
        y += x
        return F.relu(y * 1.0)


def block() -> Block:
    torch.manual_seed(0)
    return Block()


X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def held(weights: dict[str, Any], *points: tuple[Point, ActivationQuantizer], inputs: tuple = ()) -> Quantization:
    return Quantization(weights, points, inputs)


def test_functions_sums_and_weights_are_rounded_where_it_says() -> None:
    model = nn.Sequential(block(), block())
    reference = block()
    attach(
        model,
        held(
            {"0.fc.weight": Double(8)},
            (Point("0.relu_0", "0", "relu", 0), Times(3.0)),
            (Point("0.add_0", "0", "add", 0), Times(5.0)),
            (Point("0.add_0", "0", "add", 0, 1), Times(7.0)),
            (Point("1.fc", "1.fc", "linear", 0), Times(11.0)),
        ),
    )

    def by_hand(x: Tensor) -> Tensor:
        fc = reference.fc
        y = 3 * F.relu(F.linear(x, 2 * fc.weight, fc.bias))
        y = F.relu(5 * (y + 7 * x))
        z = F.relu(11 * F.linear(y, fc.weight, fc.bias)) + y
        return F.relu(z)

    assert torch.allclose(model(X), by_hand(X), rtol=1e-5)


def test_the_parameters_keep_their_names_and_the_state_has_the_quantizers_beside_them() -> None:
    model = block()
    names = [name for name, _ in model.named_parameters()]
    grid = FixedGrid(8, 0, 255)
    attach(model, held({"fc.weight": LinearWeight(8)}, (Point("relu_0", "", "relu", 0), grid)))
    assert [name for name, _ in model.named_parameters()] == names
    assert "quantization.activations.:relu:0.scale" in model.state_dict()
    detach(model)
    assert quantization_of(model) is None
    assert list(model.state_dict()) == names
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_an_error_in_the_forward_pass_leaves_no_mode_behind() -> None:
    model = nn.Sequential(block())
    attach(model, held({"0.fc.weight": Double(8)}))
    with pytest.raises(RuntimeError):
        model(torch.ones(1, 4))
    assert _get_current_function_mode_stack() == []
    assert torch.allclose(model(X), model(X))
    assert _get_current_function_mode_stack() == []


@pytest.mark.slow
def test_an_export_that_fails_in_mid_pass_leaves_nothing_behind_either() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.fc(x)
            return y if bool(y.sum() > 0) else -y  # which depends on the values

    model = Fails().eval()
    attach(model, held({"fc.weight": Double(8)}))
    before = model(X)
    with pytest.raises(RuntimeError, match="data-dependent"), modes_kept():
        torch.export.export(model, (X,), strict=False)
    assert _get_current_function_mode_stack() == []
    assert torch.equal(model(X), before)


def test_a_module_by_itself_is_rounded_too_and_another_network_is_not() -> None:
    model, other = nn.Sequential(block()), block()
    attach(model, held({"0.fc.weight": Double(8)}))
    weight, bias = other.fc.weight, other.fc.bias
    assert torch.allclose(model[0].fc(X), F.linear(X, 2 * weight, bias))
    assert torch.equal(other.fc(X), F.linear(X, weight, bias))


def test_copies_are_networks_of_their_own() -> None:
    model = nn.Sequential(block())
    attach(model, held({"0.fc.weight": LinearWeight(2)}, (Point("0.relu_0", "0", "relu", 0), FixedClip(2))))
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(X), model(X))
        before = model(X)
        again[0].fc.weight.data.mul_(3.0)
        assert not torch.equal(again(X), before)
        assert torch.equal(model(X), before)


def test_a_module_that_runs_twice_is_rounded_both_times_and_its_weight_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.fc(x))

    model, seen = Twice(), []

    class Counted(Double):
        def forward(self, weight: Tensor) -> Tensor:
            seen.append(1)
            return super().forward(weight)

    quantizer = Times(2.0)
    attach(model, held({"fc.weight": Counted(8)}, (Point("fc", "fc", "linear", 0), quantizer)))
    model(X)
    assert quantizer.seen == 2
    assert len(seen) == 1


def test_a_weight_that_two_layers_share_is_rounded_in_both() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.out = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.out.weight = self.words.weight

        def forward(self, words: Tensor) -> Tensor:
            return self.out(self.words(words))

    model = Tied()
    words = torch.tensor([0, 3])
    before = model(words)
    attach(model, held({"words.weight": Double(8)}))
    assert torch.allclose(model(words), 4 * before, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [(nn.MultiheadAttention(4, 2), (torch.ones(2, 1, 4),) * 3), (nn.LSTM(4, 3), (torch.ones(2, 1, 4),)),
     (nn.GRU(4, 3), (torch.ones(2, 1, 4),))],
    ids=["attention", "lstm", "gru"],
)  # fmt: skip
def test_attention_and_recurrent_layers_compute_with_rounded_weights(model: nn.Module, inputs: tuple) -> None:
    names = [name for name, parameter in model.named_parameters() if parameter.dim() == 2]
    rounded = copy.deepcopy(model)
    for name in names:
        rounded.get_parameter(name).data.copy_(LinearWeight(3)(model.get_parameter(name)))
    expected = rounded(*inputs)[0]
    attach(model, held({name: LinearWeight(3) for name in names}))
    assert torch.allclose(model(*inputs)[0], expected, atol=1e-5)


def test_the_output_of_a_recurrent_layer_is_rounded_and_its_state_is_not() -> None:
    model = nn.LSTM(4, 3)
    before = model(torch.ones(2, 1, 4))
    attach(model, held({}, (Point("lstm", "", "lstm", 0), Times(2.0))))
    after = model(torch.ones(2, 1, 4))
    assert torch.allclose(after[0], 2 * before[0])
    assert torch.allclose(after[1][0], before[1][0])


def test_inputs_of_floats_are_rounded_in_their_order() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, at: Tensor, y: Tensor) -> Tensor:
            return x[at] + y

    model = Two()
    attach(model, held({}, inputs=(Times(2.0), Times(3.0))))
    found = model(torch.ones(2), torch.tensor([1]), torch.ones(1))
    assert found.tolist() == [5.0]


def test_it_can_be_switched_off_and_that_is_in_the_state() -> None:
    model = block()
    before = model(X)
    attach(model, held({"fc.weight": Double(8)}))
    rounded = model(X)
    assert not torch.equal(rounded, before)
    with as_floats():
        assert torch.equal(model(X), before)
    kept = quantization_of(model)
    assert kept is not None
    kept.enabled = False
    assert torch.equal(model(X), before)
    again = block()
    attach(again, held({"fc.weight": Double(8)}))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(X), before)


def test_gradients_reach_weights_and_inputs() -> None:
    model = block()
    grid = FixedGrid(8, 0, 255)
    grid.take(grid_of(0.0, 3.0, 8, Mode.ASYMMETRIC_UNSIGNED))
    attach(model, held({"fc.weight": LinearWeight(4)}, (Point("relu_0", "", "relu", 0), grid)))
    x = X.clone().requires_grad_()
    model(x).sum().backward()
    assert model.fc.weight.grad is not None
    assert float(model.fc.weight.grad.abs().sum()) > 0
    assert float(x.grad.abs().sum()) > 0


def test_what_leaves_the_network_carries_nothing_of_it() -> None:
    model = nn.Sequential(nn.ReLU())
    grid = FixedGrid(8, 0, 255)
    attach(model, held({}, (Point("0", "0", "relu", 0), grid)))
    assert vars(model(X)) == {}


def test_a_network_is_quantized_once_and_has_no_such_child_of_its_own() -> None:
    model = block()
    attach(model, held({}))
    with pytest.raises(ConfigError, match="the network is quantized already"):
        attach(model, held({}))
    named = nn.Module()
    named.quantization = nn.ReLU()
    with pytest.raises(ConfigError, match="has a 'quantization' of its own"):
        attach(named, held({}))


def on(factor: float, high: int = 255) -> FixedGrid:
    """A grid of whole numbers from 0, times a step."""
    made = FixedGrid(8, 0, high)
    made.take(Grid(torch.tensor([factor]), torch.zeros(1), 0, high))
    return made


class Sums(nn.Module):
    """A layer whose factors have grids, unless what is between them and it is more than a move."""

    def __init__(self, between: Any, layer: Any = F.linear, shape: tuple[int, ...] = (2, 3)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full(shape, 0.5))
        self.bias = nn.Parameter(torch.tensor([0.3, 0.0]))
        self.between, self.layer = between, layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.between(F.relu(x)), self.weight, self.bias)


def summed(model: Sums, function: str, x: Tensor) -> Tensor:
    """With numbers of 1 for activations, of 0.5 for weights, and sums of 4 bits, -8 to 7 in units of 0.5."""
    weight = FixedWeight(8, -128, 127, [1] * model.weight.dim())
    weight.take(Grid(torch.full([1] * model.weight.dim(), 0.5), torch.zeros([1] * model.weight.dim()), -128, 127))
    points = (
        (Point("relu_0", "", "relu", 0), on(1.0)),
        (Point("sums", "", function, 0, ACCUMULATOR), Accumulator(4)),
    )
    attach(model, held({"weight": weight}, *points))
    return model(x)


MOVED: dict[str, Any] = {
    "as it is": lambda y: y,
    "transposed twice": lambda y: y.T.T,
    "copied, in another shape": lambda y: y.clone().view(3, 1).reshape(1, 3),
    "not below zero, again": F.relu,
    "dropped out": lambda y: F.dropout(y, 0.5, False),
}


@pytest.mark.parametrize("moved", MOVED)
def test_sums_know_the_grids_of_their_factors_through_whatever_moves_them(moved: str) -> None:
    x = torch.tensor([[3.2, 4.0, 50.0]])
    found = summed(Sums(MOVED[moved]), "linear", x)
    assert found.tolist() == [[3.5, 3.5]]  # 57 / 2 is beyond 7 units of 0.5
    small = summed(Sums(MOVED[moved]), "linear", torch.tensor([[1.0, 1.2, 0.0]]))
    assert small.tolist() == [[1.5, 1.0]]  # the bias of 0.3 is one unit


def test_sums_of_a_float_stay_what_they_are() -> None:
    x = torch.tensor([[3.2, 4.0, 50.0]])
    for between in (lambda y: y * 1.0, lambda y: y + 0.0, lambda y: y.exp().log()):
        found = summed(Sums(between), "linear", x)
        assert found.flatten().tolist() == pytest.approx([28.8, 28.5], rel=1e-4)  # the bias too: 57 / 2 + 0.3
    named = Sums(lambda y: y, lambda y, weight, bias: F.linear(y, weight, bias=bias))
    assert summed(named, "linear", x / 50).tolist() == [[1.0, 0.5]]
    bare = Sums(lambda y: y, lambda y, weight, bias: F.linear(y, weight))
    assert summed(bare, "linear", x).tolist() == [[3.5, 3.5]]


@pytest.mark.parametrize(
    ("layer", "function", "shape"),
    [(F.conv1d, "conv1d", (2, 3, 1)), (F.conv2d, "conv2d", (2, 3, 1, 1)), (F.conv3d, "conv3d", (2, 3, 1, 1, 1))],
)
def test_convolutions_have_units_a_channel(layer: Any, function: str, shape: tuple[int, ...]) -> None:
    size = shape[2:]
    model = Sums(lambda y: y, layer, shape)
    scale = torch.tensor([0.5, 0.25]).view(2, *[1] * (len(shape) - 1))
    weight = FixedWeight(8, -128, 127, list(scale.shape))
    weight.take(Grid(scale, torch.zeros_like(scale), -128, 127))
    points = ((Point("relu_0", "", "relu", 0), on(1.0)), (Point("s", "", function, 0, ACCUMULATOR), Accumulator(4)))
    attach(model, held({"weight": weight}, *points))
    with torch.no_grad():
        model.bias.zero_()
        found = model(torch.full((1, 3, *(2 * n for n in size)), 50.0))
    assert found.shape == (1, 2, *(2 * n for n in size))
    assert found[0, 0].unique().tolist() == [3.5]
    assert found[0, 1].unique().tolist() == [1.75]


def test_an_argument_that_is_given_twice_and_tensors_in_lists_are_rounded() -> None:
    class Lists(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.row = nn.Parameter(torch.ones(1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x + x, self.row]) + torch.cat((x, self.row))

    model = Lists()
    points = (
        (Point("add_0", "", "add", 0, 0), Times(3.0)),
        (Point("cat_0", "", "cat", 0, 1), Times(5.0)),
        (Point("cat_1", "", "cat", 1, 0), Times(7.0)),
    )
    x = torch.full((1, 3), 1.0)
    attach(model, held({"row": Double(8)}, *points))
    first, second = model(x)
    assert first.tolist() == [3 + 3 + 7] * 3
    assert second.tolist() in ([2 * 5 + 2] * 3, [2 + 2] * 3)


def test_what_it_is_asked_and_told_of_its_points() -> None:
    relu, other = Point("relu_0", "", "relu", 0), Point("add_0", "", "add", 0)
    entry, first = Times(1.0), Times(2.0)
    kept = held({"a.b": LinearWeight(3)}, (relu, first), (Point("add_0", "", "add", 0, 1), FixedGrid(5, 0, 31)),
                inputs=(entry,))  # fmt: skip
    assert kept.weight_names() == ["a.b"]
    assert kept.weight("a.b").bits == 3
    with pytest.raises(KeyError):
        kept.weight("a")
    assert (kept.bits_at(relu, -1), kept.bits_at(other, 1), kept.bits_at(other, 0)) == (8, 5, None)
    assert list(kept.each_activation())[:2] == [entry, first]
    kept.track(False)
    assert [each.tracking for each in kept.each_activation()] == [False] * 3
    kept.track(True)
    assert all(each.tracking for each in kept.each_activation())
    kept.replace_weight("a.b", LinearWeight(7))
    kept.replace_activation(relu, FixedGrid(6, 0, 63))
    assert (kept.weight("a.b").bits, kept.activation(relu).bits, kept.bits_at(relu, -1)) == (7, 6, 6)
    assert [tuple(tensor.shape) for tensor in held({}, (relu, LearnedClip(4))).learned()] == [(1,)]


def test_a_network_is_attached_in_the_mode_that_it_is_in_and_a_float_one_is_detached_without_harm() -> None:
    for training in (True, False):
        model = block().train(training)
        attach(model, held({"fc.weight": Double(8)}))
        assert quantization_of(model).training is training
        detach(model)
        detach(model)
        assert torch.equal(model(X), block()(X))
    empty = nn.ReLU()
    attach(empty, held({}))
    assert torch.equal(empty(X), X.relu())


def test_a_linear_layer_has_units_a_channel_in_its_last_dimension() -> None:
    model = Sums(lambda y: y)
    scale = torch.tensor([[0.5], [0.25]])
    weight = FixedWeight(8, -128, 127, [2, 1])
    weight.take(Grid(scale, torch.zeros_like(scale), -128, 127))
    points = ((Point("relu_0", "", "relu", 0), on(1.0)), (Point("s", "", "linear", 0, ACCUMULATOR), Accumulator(4)))
    attach(model, held({"weight": weight}, *points))
    with torch.no_grad():
        assert model(torch.full((2, 5, 3), 50.0)).unique(dim=1).tolist() == [[[3.5, 1.75]]] * 2
    assert on(1.0).frozen().grid().high == 255  # for good already
