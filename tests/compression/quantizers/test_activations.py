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


def test_a_tracked_range_by_hand_before_and_after_its_first_minibatches() -> None:
    quantizer = TrackedRange(2, "ASYMMETRIC_UNSIGNED")
    assert not quantizer.ready
    before = quantizer.frozen()
    assert isinstance(before, FixedGrid)
    assert (float(before.grid().scale), before.low, before.high) == (pytest.approx(1 / 3), 0, 3)  # over [0, 1]
    quantizer(torch.empty(0))
    quantizer.tracking = False
    assert torch.equal(quantizer(X), X)
    assert not quantizer.ready
    quantizer.tracking = True
    quantizer(torch.tensor([0.0, 6.0]))
    assert [float(end) for end in quantizer.range()] == pytest.approx([0.0, 6.0], rel=1e-3)  # of the first alone
    quantizer(torch.tensor([0.0, 12.0]))
    assert float(quantizer.steps) == 2
    mean = (0.999 * 6.0 + 12.0) / 1.999  # which weighs the first by 0.999
    assert [float(end) for end in quantizer.range()] == pytest.approx([0.0, mean], rel=1e-3)
    grid, after = quantizer.grid(), quantizer.eval().frozen()
    assert grid is not None
    assert float(grid.scale) == pytest.approx(mean / 3, rel=1e-3)
    values = torch.tensor([1.0, 4.0, 8.0, 30.0, -2.0])
    assert quantizer(values).tolist() == pytest.approx([0.0, mean / 3, mean, mean, 0.0], rel=1e-3)
    assert torch.allclose(after(values), quantizer(values))


def test_a_tracked_range_is_as_wide_on_both_sides_where_the_numbers_are_and_passes_gradients_inside() -> None:
    quantizer = TrackedRange(8)
    assert quantizer.described() == {"bits": 8, "mode": "SYMMETRIC", "ema_decay": 0.999}
    quantizer(torch.tensor([-5.0, 3.0]))
    assert [float(end) for end in quantizer.range()] == pytest.approx([-5.0, 5.0], rel=1e-3)
    quantizer.eval()
    values = torch.tensor([-9.0, -4.0, 0.0, 4.0, 9.0], requires_grad=True)
    quantizer(values).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_clips_over_zero_and_their_grids() -> None:
    assert FixedClip(2).described() == {"bits": 2, "highest": 1.0}
    wide = FixedClip(2, 6.0)
    assert (float(wide.grid().scale), float(wide.grid().zero_point), wide.grid().high) == (2.0, 0.0, 3)
    assert wide(torch.tensor([-1.0, 3.2, 9.0])).tolist() == [0.0, 4.0, 6.0]
    frozen = wide.frozen()
    assert torch.equal(frozen(X), wide(X))
    learned = LearnedClip(2)
    assert learned.described() == {"bits": 2, "initial": 8.0}
    assert learned.clip_val.tolist() == [8.0]
    assert float(learned.grid().scale) == pytest.approx(8 / 3)
    assert learned(torch.tensor([5.0, 80.0, -1.0])).tolist() == pytest.approx([16 / 3, 8.0, 0.0])
    assert torch.equal(learned.frozen()(X), learned(X))


def test_a_learned_step_begins_with_the_first_minibatch_that_it_is_trained_on() -> None:
    quantizer = LearnedStep(4)
    assert (quantizer.low, quantizer.high, quantizer.described()) == (-8, 7, {"bits": 4, "signed": True})
    assert (LearnedStep(4, signed=False).low, LearnedStep(4, signed=False).high) == (0, 15)
    before = quantizer.frozen()
    assert isinstance(before, FixedGrid)
    assert (before.low, before.high, float(before.scale), float(before.zero_point)) == (-8, 7, 1.0, 0.0)
    assert quantizer.grid() is None
    assert torch.equal(quantizer.eval()(X), X)
    quantizer.train()(torch.empty(0))
    quantizer.tracking = False
    assert torch.equal(quantizer(X), X)
    assert not quantizer.ready
    quantizer.tracking = True
    values = torch.tensor([[0.0, 2.0], [-4.0, 1.0]], requires_grad=True)
    step = 2 * (7 / 4) / 7**0.5  # 2 mean|v| / sqrt(high)
    result = quantizer(values)
    assert quantizer.ready
    grid = quantizer.grid()
    assert grid is not None
    assert (float(grid.scale), float(grid.zero_point)) == (pytest.approx(step), 0.0)
    assert result.flatten().tolist() == pytest.approx([round(v / step) * step for v in (0.0, 2.0, -4.0, 1.0)])
    quantizer(values * 10)
    assert float(quantizer.steps.size.detach()) == pytest.approx(step)
    result.sum().backward()
    # of each value round(v) - v in steps, over the root of the two values of a sample times the highest number
    off = sum(round(v / step) - v / step for v in (0.0, 2.0, -4.0, 1.0))
    assert float(quantizer.steps.size.grad) == pytest.approx(off / 14**0.5, rel=1e-4)
    assert torch.equal(quantizer.frozen()(X), quantizer(X))


def test_a_dynamic_range_is_clipped_as_it_is_told() -> None:
    assert DynamicRange(8).described() == {
        "bits": 8, "mode": "SYMMETRIC", "clip": "NONE", "num_stds": 2.0, "percentile": 99.99, "half_range": False,
        "multiplier_bits": None,
    }  # fmt: skip
    values = torch.cat([torch.zeros(98), torch.tensor([-10.0, 10.0])])
    spread = float(values.std())
    for stds, told in ((2.0, {}), (3.0, {"num_stds": 3.0})):
        grid = DynamicRange(8, "ASYMMETRIC_SIGNED", "N_STD", **told).grid_for(values)
        assert float(grid.scale) == pytest.approx(2 * stds * spread / 255, rel=1e-2)
    half = DynamicRange(4, "ASYMMETRIC_UNSIGNED", "GAUSS", half_range=True).grid_for(values.abs())
    whole = DynamicRange(4, "ASYMMETRIC_UNSIGNED", "GAUSS").grid_for(values.abs())
    assert float(half.scale) != float(whole.scale)
    rough = DynamicRange(8, "ASYMMETRIC_UNSIGNED", multiplier_bits=3).grid_for(torch.tensor([0.0, 0.3 * 255]))
    assert float(rough.scale) == pytest.approx(2 / 6)


def test_sums_of_all_bits_are_left_as_they_are_and_of_fewer_are_whole_numbers_of_their_unit() -> None:
    values, unit = torch.tensor([[0.25, -0.52]]), torch.tensor([0.1])
    assert torch.equal(Accumulator(32).sums(values, unit, -1), values)
    assert Accumulator(31).sums(values, unit, -1).flatten().tolist() == pytest.approx([0.2, -0.5])
    rough = Accumulator(32, multiplier_bits=3).sums(values, unit, -1)  # one over the unit, 10, in three bits: 5 * 2
    assert rough.flatten().tolist() == pytest.approx([0.2, -0.5])
    grid = grid_under(Accumulator(8).sums(values, unit, -1))
    assert grid is not None
    assert (grid.low, grid.high, grid.zero_point.tolist()) == (-128, 127, [0.0])
    assert Accumulator().described() == {"bits": 32, "multiplier_bits": None}
    assert Accumulator().grid() is None
    low = Accumulator(8).sums(torch.tensor([[-100.0]]), unit, -1)
    assert float(low) == pytest.approx(-12.8)
    assert float(Accumulator(8).bias(torch.tensor([-100.0]), unit)) == pytest.approx(-12.8)
    assert float(Accumulator(8, 3).approximate(torch.tensor(0.3))) == pytest.approx(2 / 6)
    assert float(Accumulator(8).approximate(torch.tensor(0.3))) == pytest.approx(0.3)


def test_gradients_pass_sums_that_did_not_saturate() -> None:
    values = torch.tensor([[-100.0, 1.0, 100.0]], requires_grad=True)
    Accumulator(8).sums(values, torch.tensor([0.1]), -1).sum().backward()
    assert values.grad is not None
    assert values.grad.flatten().tolist() == [0.0, 1.0, 0.0]


def test_floats_of_other_bits_than_half_precision_stay_as_they_are() -> None:
    fine = torch.tensor([1.0001], requires_grad=True)
    assert torch.equal(ReducedFloat(32)(fine), fine)
    half = ReducedFloat(16)(fine)
    assert half.tolist() == [1.0]
    half.sum().backward()
    assert fine.grad is not None
    assert fine.grad.tolist() == [1.0]
    assert ReducedFloat(16).frozen().bits == 16
