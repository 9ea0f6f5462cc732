"""Rounded activations: worked out by hand; what is learned and tracked; sums in accumulators."""

from __future__ import annotations

import pytest
import torch

from raydistill.compression.quantizers.activations import (
    MENU,
    Accumulator,
    ActivationQuantizer,
    DynamicRange,
    FixedClip,
    FixedGrid,
    LearnedClip,
    LearnedStep,
    ReducedFloat,
    TrackedRange,
    approximated,
)
from raydistill.compression.quantizers.grid import Grid, Mode, grid_of, grid_under, on_grid

X = torch.tensor([-1.0, 0.2, 0.7, 1.0, 3.0])


def test_a_moving_average_whose_bias_is_taken_out() -> None:
    quantizer = TrackedRange(8, "ASYMMETRIC_SIGNED", ema_decay=0.9)
    assert quantizer.grid() is None
    assert torch.equal(quantizer.eval()(X), X)  # nothing seen yet
    quantizer.train()
    for scale in (1.0, 2.0):
        quantizer(X * scale)
    expected = (0.9 * 0.1 * 3.0 + 0.1 * 6.0) / (1 - 0.81)
    assert float(quantizer.range()[1]) == pytest.approx(expected)
    quantizer.tracking = False
    quantizer(X * 100)
    quantizer.eval()(X * 100)
    assert float(quantizer.range()[1]) == pytest.approx(expected)
    assert float(quantizer.eval()(torch.tensor([100.0]))) == pytest.approx(expected, rel=0.02)


def test_the_clip_of_dorefa_and_wrpn() -> None:
    assert FixedClip(2)(X).tolist() == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0, 1.0])
    values = torch.nn.Parameter(X.clone())
    FixedClip(2)(values).sum().backward()
    assert values.grad.tolist() == [0.0, 1.0, 1.0, 0.0, 0.0]


def test_a_learned_clip_is_moved_by_what_it_clips() -> None:
    quantizer = LearnedClip(2, initial=1.0)
    values = torch.nn.Parameter(X.clone())
    quantizer(values).sum().backward()
    assert values.grad.tolist() == [0.0, 1.0, 1.0, 0.0, 0.0]
    assert quantizer.clip_val.grad.tolist() == [2.0]
    quantizer.clip_val.data.fill_(-1.0)
    assert bool(torch.isfinite(quantizer(X)).all())


def test_a_fixed_grid_is_taken() -> None:
    quantizer = FixedGrid(2, 0, 3)
    quantizer.take(grid_of(0.0, 3.0, 2, Mode.ASYMMETRIC_UNSIGNED))
    assert quantizer(X).tolist() == [0.0, 0.0, 1.0, 1.0, 3.0]
    assert grid_under(quantizer(X)) is not None


def test_a_dynamic_range_is_that_of_what_it_is_given() -> None:
    quantizer = DynamicRange(2, "ASYMMETRIC_UNSIGNED")
    assert quantizer.grid() is None
    assert quantizer(torch.tensor([0.0, 1.4, 3.0])).tolist() == [0.0, 1.0, 3.0]
    assert quantizer(torch.tensor([0.0, 14.0, 30.0])).tolist() == [0.0, 10.0, 30.0]
    assert quantizer(torch.empty(0)).numel() == 0
    rows = torch.tensor([[0.0, 2.0], [0.0, 4.0]])
    assert float(DynamicRange(2, "ASYMMETRIC_UNSIGNED", "AVG").grid_for(rows).scale) == 1.0


@pytest.mark.parametrize(
    "quantizer",
    [
        TrackedRange(4, "SYMMETRIC"), FixedClip(3, 2.0), LearnedClip(4, 3.0), FixedGrid(4, -8, 7, 10),
        LearnedStep(4, signed=False),
        DynamicRange(4, "ASYMMETRIC_SIGNED", "GAUSS", half_range=True), Accumulator(24, 12), ReducedFloat(16),
    ],
    ids=repr,
)  # fmt: skip
def test_each_is_made_again_from_what_it_says(quantizer: ActivationQuantizer) -> None:
    again = MENU[quantizer.NAME](**quantizer.described())
    again.load_state_dict(quantizer.state_dict())
    assert again.described() == quantizer.described()
    assert torch.equal(again.eval()(X), quantizer.eval()(X)) if not isinstance(quantizer, Accumulator) else True


INPUT = Grid(torch.tensor([0.5]), torch.zeros(1), -128, 127)
WEIGHT = Grid(torch.tensor([[0.25], [1.0]]), torch.zeros(2, 1), -128, 127)


def test_the_unit_of_sums_is_the_product_of_the_factors_units() -> None:
    accumulator = Accumulator()
    assert accumulator.unit(INPUT, WEIGHT).tolist() == [0.125, 0.5]
    unit = accumulator.unit(INPUT, WEIGHT)
    assert accumulator.bias(torch.tensor([0.3, 0.3]), unit).tolist() == pytest.approx([0.25, 0.5])
    values = torch.tensor([[1.0, 2.0]])
    sums = accumulator.sums(values, unit, -1)
    assert torch.equal(sums, values)
    grid = grid_under(sums)
    assert grid is not None
    assert grid.scale.tolist() == [0.125, 0.5]
    assert grid_under(values) is None


def test_sums_of_few_bits_saturate_each_channel_in_its_unit() -> None:
    accumulator = Accumulator(8)
    unit = accumulator.unit(INPUT, WEIGHT)
    sums = accumulator.sums(torch.full((1, 2, 1, 1), 100.0), unit, -3)
    assert sums.flatten().tolist() == [127 * 0.125, 127 * 0.5]
    assert float(accumulator.bias(torch.tensor([1000.0, 0.0]), unit)[0]) == 127 * 0.125


def test_a_transposed_convolution_of_groups_repeats_its_units() -> None:
    accumulator = Accumulator(8)
    sums = accumulator.sums(torch.full((1, 4), 100.0), torch.tensor([0.125, 0.5]), -1)
    assert sums.flatten().tolist() == [127 * 0.125, 127 * 0.5] * 2
    assert accumulator.bias(torch.full((4,), 0.3), torch.tensor([0.125, 0.5])).tolist() == [0.25, 0.5] * 2


def test_an_approximate_factor_from_sums_to_numbers() -> None:
    """By hand: 1000 units of 0.01 are 10; over steps of 0.3 that is 33.3. The factor 0.01 / 0.3 in three bits is
    7 / 2^8 rounded down from 8.5 / 2^8: 4.26 / 2^7."""
    sums = on_grid(torch.tensor([10.0]), Grid(torch.tensor(0.01), torch.zeros(()), -(2**31), 2**31 - 1))
    quantizer = FixedGrid(8, -128, 127, multiplier_bits=3)
    quantizer.take(Grid(torch.tensor(0.3), torch.zeros(1), -128, 127))
    factor = 4 / 2**7  # 0.0333 * 2^7 = 4.27, and 2^8 would need 8
    assert float(quantizer(sums)) == pytest.approx(round(1000 * factor) * 0.3)
    exact = FixedGrid(8, -128, 127)
    exact.take(Grid(torch.tensor(0.3), torch.zeros(1), -128, 127))
    assert float(exact(sums)) == pytest.approx(33 * 0.3)


def test_approximate_scales_are_distillers_which_are_one_over_ours() -> None:
    grid = approximated(Grid(torch.tensor([0.3]), torch.zeros(1), 0, 255), 3)
    assert float(grid.scale) == pytest.approx(2 / 6)  # 1 / 0.3 = 3.33 = 6.67 / 2, rounded down
    assert approximated(grid, None) is grid


def test_half_precision() -> None:
    assert torch.equal(ReducedFloat(16)(X), X.half().float())
    assert ReducedFloat(16).grid() is None
