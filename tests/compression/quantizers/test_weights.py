"""Rounded weights: worked out by hand; zero stays zero; gradients pass."""

from __future__ import annotations

import pytest
import torch

from raydistill.compression.quantizers.grid import Grid, grid_under
from raydistill.compression.quantizers.weights import (
    MENU,
    DorefaWeight,
    FixedWeight,
    LearnedStepWeight,
    LinearWeight,
    ReducedFloatWeight,
    WeightQuantizer,
    WrpnWeight,
)

ALL: list[WeightQuantizer] = [
    LinearWeight(4),
    LinearWeight(2, "ASYMMETRIC_UNSIGNED", 0),
    LinearWeight(3, "SYMMETRIC_RESTRICTED", 1),
    LinearWeight(4, "ASYMMETRIC_UNSIGNED", 0, 2),
    WrpnWeight(4),
    DorefaWeight(1),
    DorefaWeight(3),
    LearnedStepWeight(4),
    LearnedStepWeight(3, 0, 6),
    FixedWeight(4, -7, 7),
    ReducedFloatWeight(16),
]


def weight(seed: int = 0) -> torch.Tensor:
    found = torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))
    found[::2, 1] = 0.0
    return found


@pytest.mark.parametrize("quantizer", ALL, ids=repr)
def test_zero_stays_zero_and_it_is_made_again_from_what_it_says(quantizer: WeightQuantizer) -> None:
    rounded = quantizer(weight())
    assert rounded.shape == weight().shape
    assert bool((rounded[weight() == 0] == 0).all())
    again = MENU[quantizer.NAME](**quantizer.described())
    again.load_state_dict(quantizer.state_dict())
    assert torch.equal(again(weight()), rounded)


@pytest.mark.parametrize("quantizer", ALL[:-1], ids=repr)
def test_what_comes_out_lies_on_the_grid(quantizer: WeightQuantizer) -> None:
    rounded, grid = quantizer(weight()), quantizer.grid(weight())
    numbers = rounded / grid.scale + grid.zero_point
    assert torch.allclose(numbers, numbers.round(), atol=1e-3)
    assert float(numbers.min()) >= grid.low - 1e-3
    assert float(numbers.max()) <= grid.high + 1e-3


@pytest.mark.parametrize("quantizer", ALL, ids=repr)
def test_gradients_go_back_to_the_float_weight(quantizer: WeightQuantizer) -> None:
    parameter = torch.nn.Parameter(weight() * 0.1)
    quantizer(parameter).sum().backward()
    assert parameter.grad is not None
    assert float(parameter.grad.abs().sum()) > 0


def test_one_range_a_channel_by_hand() -> None:
    values = torch.tensor([[1.0, -2.0], [10.0, 4.0]])
    rounded = LinearWeight(3, "SYMMETRIC_RESTRICTED", 0)(values)
    assert rounded.flatten().tolist() == pytest.approx([4 / 3, -2.0, 10.0, 10 / 3])  # 1.5 steps are 2, halves to even
    rounded = LinearWeight(3, "SYMMETRIC_RESTRICTED", 1)(values)
    assert rounded.flatten().tolist() == pytest.approx([0.0, -8 / 3, 10.0, 4.0])  # 1.5 steps of 4/3 are 2


def test_dorefa_by_hand() -> None:
    values = torch.tensor([0.0, 1.0, -0.5])
    unit = values.tanh() / (2 * values.tanh().abs().max()) + 0.5
    expected = 2 * torch.round(unit * 3) / 3 - 1
    rounded = DorefaWeight(2)(values)
    assert rounded[0] == 0.0  # which is none of the levels: it was pruned
    assert rounded[1:].tolist() == pytest.approx(expected[1:].tolist())
    assert DorefaWeight(1)(values).tolist() == pytest.approx([0.0, 0.5, -0.5])


def test_wrpn_clips_at_one() -> None:
    assert WrpnWeight(2)(torch.tensor([3.0, -3.0])).tolist() == pytest.approx([2 / 3, -4 / 3], abs=0.7)
    parameter = torch.nn.Parameter(torch.tensor([3.0, 0.2]))
    WrpnWeight(4)(parameter).sum().backward()
    assert parameter.grad.tolist() == [0.0, 1.0]


def test_a_fixed_grid_is_taken_and_told() -> None:
    quantizer = FixedWeight(3, -4, 3, [2, 1])
    quantizer.take(Grid(torch.tensor([0.5, 1.0]), torch.zeros(2), -3, 3))
    values = torch.tensor([[0.6, 9.0], [0.6, -9.0]])
    rounded = quantizer(values)
    assert rounded.tolist() == [[0.5, 1.5], [1.0, -3.0]]
    assert grid_under(rounded) is not None


def test_half_precision_is_torchs() -> None:
    assert torch.equal(ReducedFloatWeight(16)(weight()), weight().half().float())
    assert torch.equal(ReducedFloatWeight(32)(weight()), weight())


@pytest.mark.parametrize("shape", [(4, 10), (4, 10, 3), (1, 10)])
@pytest.mark.parametrize(("group", "sizes"), [(4, (4, 4, 2)), (6, (5, 5)), (10, (10,)), (1, (1,) * 10)])
def test_groups_of_columns_have_a_range_each(shape: tuple[int, ...], group: int, sizes: tuple[int, ...]) -> None:
    """6 of 10 columns are two groups, of 5 each. Each is what a matrix of its own would be."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    quantizer = LinearWeight(3, "ASYMMETRIC_UNSIGNED", 0, group)
    rounded, kept = quantizer(values), quantizer.kept_grid(values)
    alone = [LinearWeight(3, "ASYMMETRIC_UNSIGNED", 0)(part) for part in values.split(sizes, 1)]
    torch.testing.assert_close(rounded, torch.cat(alone, 1))
    assert kept.scale.shape == (shape[0], len(sizes), *[1] * (len(shape) - 2))
    fixed = FixedWeight(3, kept.low, kept.high, kept.scale.shape)
    fixed.take(kept)
    assert torch.equal(fixed(values), rounded)
