"""A quantized network whose numbers are settled, and batch norms that go into its grids."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from raydistill.compression.deployment import deploy
from raydistill.compression.floats import as_floats
from raydistill.compression.quantizers import MENU, quantization_of
from raydistill.compression.quantizers.activations import FixedClip, FixedGrid, TrackedRange
from raydistill.compression.quantizers.frozen import (
    FrozenWeight,
    floats_put_away,
    freeze,
    frozen_weight,
    of_equal_groups,
)
from raydistill.compression.quantizers.grid import Grid
from raydistill.compression.quantizers.network import Quantization, attach
from raydistill.compression.quantizers.points import Point
from raydistill.compression.quantizers.weights import LinearWeight, ReducedFloatWeight, WeightQuantizer
from raydistill.compression.structure import Frozen, Quantized, replay

SCHEMES: dict[str, tuple[str, dict[str, Any]]] = {
    "per channel": ("QuantAwareTrainRangeLinearQuantizer", {"bits_weights": 8, "per_channel_wts": True}),
    "unsigned": ("QuantAwareTrainRangeLinearQuantizer", {"bits_weights": 6, "mode": "ASYMMETRIC_UNSIGNED"}),
    "signed": ("QuantAwareTrainRangeLinearQuantizer", {"bits_weights": 4, "mode": "ASYMMETRIC_SIGNED"}),
    "dorefa": ("DorefaQuantizer", {"bits_weights": 3}),
    "one bit": ("DorefaQuantizer", {"bits_weights": 1}),
    "wrpn": ("WRPNQuantizer", {"bits_weights": 4}),
    "lsq": ("LSQQuantizer", {"bits_weights": 4, "per_channel_wts": True}),
    "lsq, one step": ("LSQQuantizer", {"bits_weights": 3}),
    "pact": ("PACTQuantizer", {"bits_weights": 4}),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * 36, 5),
    )  # fmt: skip
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)  # half of them negative
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


def inputs(rows: int = 16) -> torch.Tensor:
    return torch.randn(rows, 3, 8, 8, generator=torch.Generator().manual_seed(rows))


def quantized(scheme: str) -> tuple[nn.Module, Quantized]:
    name, arguments = SCHEMES[scheme]
    model = network()
    change = Quantized(MENU[name]("q", bits_activations=8, **arguments).plan(model, (inputs(2),)))
    change.apply(model)
    model.train()
    with torch.no_grad():
        model(inputs())
    return model.eval(), change


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_a_settled_network_gives_what_it_gave(scheme: str) -> None:
    model, _ = quantized(scheme)
    before = model(inputs(4))
    assert freeze(model)
    torch.testing.assert_close(model(inputs(4)), before, rtol=1e-5, atol=1e-5)
    with as_floats():  # the weights themselves lie on their grids now
        assert len(model.get_parameter("0.weight")[0].unique()) <= 27
    for name in ("0.weight", "3.weight", "6.weight", "10.weight"):
        weight, held = model.get_parameter(name), frozen_weight(model, name)
        assert held is not None
        numbers = held.numbers(weight)
        assert held.low <= int(numbers.min()) <= int(numbers.max()) <= held.high
        again = (numbers - held.zero_point) * held.scale
        torch.testing.assert_close(again, weight.data, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_batch_norms_go_into_the_grids(scheme: str) -> None:
    model, change = quantized(scheme)
    before = model(inputs(4))
    done = deploy(model, (inputs(2),))
    assert (done.folded, done.rounded) == (2, 4)
    after = model(inputs(4))
    assert float((after - before).abs().max()) <= 0.02 * float(before.abs().max())  # a number may go either way
    for name in ("0.weight", "3.weight"):
        weight, held = model.get_parameter(name), frozen_weight(model, name)
        assert held is not None
        numbers = held.numbers(weight)
        assert held.low <= int(numbers.min()) <= int(numbers.max()) <= held.high
        again = (numbers - held.zero_point) * held.scale
        torch.testing.assert_close(again, weight.data, rtol=1e-5, atol=1e-6)  # not rounded a second time
    fresh = replay(network(), [change, *done.changes]).eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(inputs(4)), after)


def test_a_row_whose_lowest_number_has_no_opposite_is_mirrored() -> None:
    held = FrozenWeight(2, -2, 1)
    weight = torch.tensor([[-2.0, 1.0], [-1.0, 1.0], [-2.0, 0.0]])
    held.scale_rows(weight, torch.tensor([-3.0, -3.0, 0.0]), 0)
    scaled = weight * torch.tensor([[-3.0], [-3.0], [0.0]])
    numbers = held.numbers(scaled)
    assert numbers.tolist()[:2] == [[1, -2], [1, -1]]
    assert held.zero_point.flatten().tolist()[:2] == [-1.0, 0.0]
    assert torch.equal((numbers - held.zero_point) * held.scale, scaled)


def test_what_does_not_round_yet_is_left_alone() -> None:
    model, _ = quantized("per channel")
    held = quantization_of(model)
    assert held is not None
    held.enabled = False
    assert not freeze(model)
    assert not freeze(network())
    unseen = network()
    Quantized(MENU["QuantAwareTrainRangeLinearQuantizer"]("q", 8, 8).plan(unseen, (inputs(2),))).apply(unseen)
    done = deploy(unseen, (inputs(2),))
    assert not any(isinstance(change, Frozen) for change in done.changes)
    assert "a range has seen nothing yet" in done.notes[0]


@pytest.mark.parametrize("shape", [(3, 10), (2, 7, 3, 3)])
@pytest.mark.parametrize("groups", [2, 3])
def test_groups_of_columns_are_told_as_rows(shape: tuple[int, ...], groups: int) -> None:
    numbers = torch.arange(math.prod(shape)).view(shape)
    size = math.ceil(shape[1] / groups)
    found = of_equal_groups(numbers, groups)
    assert len(found) == shape[0] * groups
    for row in range(shape[0]):
        for group in range(groups):
            own = numbers[row, group * size : (group + 1) * size].flatten().tolist()
            told = found[row * groups + group].tolist()
            assert told[: len(own)] == own
            assert not any(told[len(own) :])


def small(**weights: WeightQuantizer) -> nn.Sequential:
    """Two layers with weights by hand, the first behind a clip at 1."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.9, -0.3], [0.2, 1.2], [0.0, -2.4]]))
        model[2].weight.copy_(torch.tensor([[1.0 + 2.0**-12, 0.5, -0.25]]))
    named = {name.replace("_", "."): quantizer for name, quantizer in weights.items()}
    attach(model, Quantization(named, [(Point("1", "1", "relu", 0), FixedClip(8))], [TrackedRange(8)]))
    return model


def test_a_network_is_settled_once_its_ranges_have_seen_something() -> None:
    weights = {"0_weight": LinearWeight(3, "SYMMETRIC_RESTRICTED"), "2_weight": ReducedFloatWeight(16)}
    model = small(**weights)
    assert not freeze(model)
    model.train()(torch.tensor([[1.0, -2.0]]))
    model.eval()
    x = torch.tensor([[0.7, -1.0], [2.0, 0.3]])
    before = model(x).detach()
    assert freeze(model)
    assert torch.allclose(model(x), before)
    frozen = frozen_weight(model, "0.weight")
    assert frozen is not None
    step = 2.4 / 3
    assert float(frozen.scale) == pytest.approx(step)
    assert model[0].weight.flatten().tolist() == pytest.approx([step, 0.0, 0.0, 2 * step, 0.0, -3 * step])
    assert frozen.numbers(model[0].weight).tolist() == [[1, 0], [0, 2], [0, -3]]
    assert frozen.numbers(model[0].weight).dtype == torch.int32
    assert model[2].weight.tolist() == [[1.0, 0.5, -0.25]], "half precision lies on no grid, but is rounded for good"
    assert frozen_weight(model, "2.weight") is None
    assert frozen_weight(model, "0.bias") is None
    assert frozen_weight(nn.Linear(1, 1), "weight") is None
    held = quantization_of(model)
    assert held is not None
    assert {type(each) for each in held.each_activation()} == {FixedGrid}
    assert not held.training
    model.train()(x * 100)
    assert torch.allclose(model.eval()(x), before), "nothing is tracked any more"
    with floats_put_away(model):
        assert model[0].weight.shape == (3, 2), "it is told as whole numbers while it is written only"


def test_scaled_rows_keep_their_numbers() -> None:
    weight = torch.tensor([[0.5, -1.0], [1.5, 0.0]])
    for zero_point, low, high in ((0.0, -4, 3), (1.0, 0, 7)):
        held = FrozenWeight(3, low, high)
        held.take(Grid(torch.tensor([0.5]), torch.tensor([zero_point + (0 if low else 2)]), low, high))
        factors = torch.tensor([2.0, -1.0])
        held.scale_rows(weight, factors, 0)
        scaled = weight * factors[:, None]
        numbers = held.numbers(scaled)
        assert torch.allclose((numbers - held.zero_point) * held.scale, scaled)
        assert held.scale.flatten().tolist() == [1.0, 0.5]
        assert held.shape == [2, 1]
    columns = FrozenWeight(3, -4, 3)
    columns.take(Grid(torch.tensor([0.5]), torch.zeros(1), -4, 3))
    columns.scale_rows(weight, torch.tensor([0.0, 1.0]), 1)
    assert columns.scale.tolist() == [[1.0, 0.5]]
    assert columns.zero_point.tolist() == [[0.0, 0.0]]
