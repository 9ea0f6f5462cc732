"""Grids of whole numbers: Distiller's figures, what the modes say, and numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.compression.quantizers.grid import (
    Grid,
    Mode,
    as_multiplier_and_shift,
    grid_of,
    grid_under,
    of_groups,
    on_grid,
)
from raydistill.compression.quantizers.ranges import Clip, value_range
from tests.compression.quantizers.oracle_nets import Oracles

ON_AN_EDGE = 3


@pytest.mark.slow
def test_all_of_distillers_tensors(compat: Path) -> None:
    """Scale (theirs is one over ours), zero point (the negative of ours) and rounded values. In three cases the
    largest values, of all or of channels, lie half a step beyond the last number, and either neighbour is right."""
    oracles = Oracles.read(compat)
    assert len(oracles.cases["tensor"]) == 214
    differ = 0
    for case in oracles.cases["tensor"]:
        values, mode = oracles.tensor(case["x"]), Mode(case["mode"])
        half, per_channel = case["half_range"], case["per_channel"]
        found = value_range(values, mode, case["bits"], Clip(case["clip"]), case["num_stds"], half, per_channel)
        shape = [-1] + [1] * (values.dim() - 1) if per_channel else []
        grid = grid_of(*(end.view(shape) for end in found), case["bits"], mode)
        assert (grid.low, grid.high) == (case["low"], case["high"])
        assert (1 / grid.scale).flatten().numpy() == pytest.approx(oracles.arrays[case["scale"]].flatten(), rel=1e-5)
        assert (-grid.zero_point).flatten().tolist() == oracles.arrays[case["zero_point"]].flatten().tolist()
        off = (grid.nearest(values) - oracles.tensor(case["fake"])).abs()
        if float(off.max()) > 1e-5:
            differ += 1
            steps = values / grid.scale
            for at in (off > 1e-5).flatten().nonzero().flatten().tolist():
                assert abs(abs(float(steps.flatten()[at])) - (2 ** case["bits"] - 1) / 2) < 1e-3
                step = float((values.flatten()[at] / steps.flatten()[at]).abs())
                assert float(off.flatten()[at]) == pytest.approx(step, rel=1e-4)
    assert differ == ON_AN_EDGE


@pytest.mark.parametrize(
    ("mode", "numbers"),
    [
        (Mode.SYMMETRIC, (-8, 7)),
        (Mode.SYMMETRIC_RESTRICTED, (-7, 7)),
        (Mode.ASYMMETRIC_UNSIGNED, (0, 15)),
        (Mode.ASYMMETRIC_SIGNED, (-8, 7)),
    ],
)
def test_numbers_of_four_bits(mode: Mode, numbers: tuple[int, int]) -> None:
    assert mode.numbers(4) == numbers


def test_by_hand() -> None:
    grid = grid_of(-1.0, 3.0, 2, Mode.ASYMMETRIC_UNSIGNED)  # 0..3, a step of 4 / 3, zero at 1 (0.75 rounded)
    assert float(grid.scale) == pytest.approx(4 / 3)
    assert float(grid.zero_point) == 1.0
    assert grid.numbers(torch.tensor([-9.0, -1.0, 0.0, 0.6, 0.7, 3.0, 9.0])).tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert grid.nearest(torch.tensor([0.7])).tolist() == pytest.approx([4 / 3])
    signed = grid_of(-1.0, 3.0, 2, Mode.ASYMMETRIC_SIGNED)
    assert (signed.low, signed.high, float(signed.zero_point)) == (-2, 1, -1.0)
    assert float(grid_of(-2.0, 1.0, 3, Mode.SYMMETRIC_RESTRICTED).scale) == pytest.approx(2 / 3)
    assert float(grid_of(-2.0, 1.0, 3, Mode.SYMMETRIC).scale) == pytest.approx(2 / 3.5)


values = st.floats(-1e4, 1e4, width=32)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(values, min_size=1, max_size=20), st.integers(2, 16), st.sampled_from(list(Mode)))
def test_rounding_is_to_the_nearest_number_zero_stays_and_a_second_time_changes_nothing(
    found: list[float], bits: int, mode: Mode
) -> None:
    tensor = torch.tensor(found)
    grid = grid_of(tensor.min(), tensor.max(), bits, mode)
    rounded = grid.nearest(tensor)
    assert float(grid.nearest(torch.zeros(1))) == 0.0
    assert torch.allclose(grid.nearest(rounded), rounded, rtol=1e-5, atol=0)
    step = float(grid.scale)
    ends = sorted((grid.low, grid.high))
    reach = [(end - float(grid.zero_point)) * step for end in ends]
    for value, result in zip(tensor.double().tolist(), rounded.double().tolist(), strict=True):
        nearest = min(max(value, reach[0]), reach[1])
        assert abs(result - nearest) <= step / 2 * (1 + 1e-3) + abs(value) * 1e-5
    assert bool((rounded.sort().values == rounded[tensor.argsort()]).all())  # order stays


@pytest.mark.slow
@settings(deadline=None)
@given(values, st.integers(2, 8), st.sampled_from(list(Mode)))
def test_the_fused_kernel_and_the_formula_agree(value: float, bits: int, mode: Mode) -> None:
    grid = grid_of(min(value, -1.0), max(value, 1.0), bits, mode)
    tensor = torch.linspace(-2, 2, 31)
    assert torch.allclose(grid.nearest(tensor), grid.values(grid.numbers(tensor)), atol=float(grid.scale) * 1e-3) or (
        int(((grid.nearest(tensor) - grid.values(grid.numbers(tensor))).abs() > float(grid.scale) * 1e-3).sum()) <= 2
    )


def test_nothing_but_zeros_have_a_step_of_one_and_ends_in_the_wrong_order_are_refused() -> None:
    for mode in Mode:
        grid = grid_of(0.0, 0.0, 4, mode)
        assert float(grid.scale) == 1.0
        assert float(grid.nearest(torch.zeros(1))) == 0.0
    with pytest.raises(ValueError, match="is above"):
        grid_of(1.0, 0.0, 4, Mode.SYMMETRIC)


def test_many_bits_are_beyond_what_floats_count_and_still_round() -> None:
    grid = grid_of(-1.0, 1.0, 32, Mode.SYMMETRIC)
    assert torch.allclose(grid.nearest(torch.tensor([0.3, -0.7])), torch.tensor([0.3, -0.7]))


def test_one_scale_a_channel() -> None:
    grid = grid_of(torch.tensor([[-1.0], [-4.0]]), torch.tensor([[1.0], [2.0]]), 3, Mode.SYMMETRIC_RESTRICTED)
    found = grid.nearest(torch.tensor([[0.5, 1.0], [0.5, 1.0]]))
    assert found.tolist() == [pytest.approx([2 / 3, 1.0]), pytest.approx([0.0, 4 / 3])]


@pytest.mark.slow
@given(st.floats(2.0**-12, 2.0**12, width=32), st.integers(2, 24))
def test_a_multiplier_and_a_shift_are_just_below_the_factor(factor: float, bits: int) -> None:
    multiplier, shift = as_multiplier_and_shift(torch.tensor(factor), bits)
    assert 2 ** (bits - 1) - 1 <= float(multiplier) < 2**bits
    near = float(multiplier) / 2 ** float(shift)
    assert near <= factor * (1 + 1e-6)
    assert factor - near <= factor * 2.0 ** (2 - bits)


def test_a_tensor_tells_the_grid_it_lies_on_until_it_is_told_otherwise() -> None:
    grid = Grid(torch.ones(1), torch.zeros(1), 0, 3)
    tensor = on_grid(torch.ones(2), grid)
    assert grid_under(tensor) is grid
    assert grid_under(tensor + 1) is None
    assert grid_under(on_grid(tensor, None)) is None


def test_one_bit_and_ranges_of_one_side_by_hand() -> None:
    assert {mode: mode.numbers(1) for mode in Mode} == {
        Mode.SYMMETRIC: (-1, 0), Mode.SYMMETRIC_RESTRICTED: (0, 0), Mode.ASYMMETRIC_UNSIGNED: (0, 1),
        Mode.ASYMMETRIC_SIGNED: (-1, 0),
    }  # fmt: skip
    assert float(grid_of(-1.0, 1.0, 1, Mode.SYMMETRIC).scale) == 2.0
    assert float(grid_of(-1.0, 1.0, 1, Mode.SYMMETRIC_RESTRICTED).scale) == 2.0
    above = grid_of(2.0, 6.0, 2, Mode.ASYMMETRIC_UNSIGNED)  # zero is taken into it
    assert (float(above.scale), float(above.zero_point)) == (2.0, 0.0)
    below = grid_of(-6.0, -2.0, 2, Mode.ASYMMETRIC_UNSIGNED)
    assert (float(below.scale), float(below.zero_point)) == (2.0, 3.0)
    assert [float(end) for end in below.ends] == [-6.0, 0.0]
    assert [mode.symmetric for mode in Mode] == [True, True, False, False]
    tiny = grid_of(-1e-45, 1e-45, 8, Mode.SYMMETRIC)
    assert bool(torch.isfinite(1 / tiny.scale))
    assert grid_of(1.0, 1.0, 4, Mode.ASYMMETRIC_UNSIGNED).high == 15


def test_rounding_is_the_same_by_every_way_that_computes_it() -> None:
    """One scale in single precision, in double precision, and one a channel that is the same for all."""
    values = torch.linspace(-1.31, 2.69, 41)  # none of them half way between two numbers
    for bits, mode in ((3, Mode.ASYMMETRIC_UNSIGNED), (4, Mode.ASYMMETRIC_SIGNED), (25, Mode.SYMMETRIC)):
        grid = grid_of(-1.0, 2.0, bits, mode)
        expected = torch.tensor([
            (min(max(round(float(value) / float(grid.scale)) + float(grid.zero_point), grid.low), grid.high)
             - float(grid.zero_point)) * float(grid.scale) for value in values
        ])  # fmt: skip
        several = Grid(grid.scale.expand(41), grid.zero_point.expand(41), grid.low, grid.high)
        for found in (grid.nearest(values), several.nearest(values), grid.nearest(values.double())):
            assert torch.allclose(found.float(), expected, atol=float(grid.scale) * 1e-3)
        assert grid.nearest(values.double()).dtype == torch.float64
        assert several.nearest(values.half()).dtype == torch.float16


def test_a_scale_for_each_group_of_columns_is_told_once_a_column() -> None:
    held = torch.tensor([[1.0, 2.0, 3.0]])
    assert of_groups(held, 6).tolist() == [[1, 1, 2, 2, 3, 3]]
    assert of_groups(held, 5).tolist() == [[1, 1, 2, 2, 3]]  # the last is smaller
    assert of_groups(held, 3) is held
    assert of_groups(held[:, :1], 6).tolist() == [[1]]
    assert of_groups(held[0], 6) is not None
    assert of_groups(held[0], 6).shape == (3,)
    taps = torch.tensor([[[1.0], [2.0]]])
    assert of_groups(taps, 4).tolist() == [[[1], [1], [2], [2]]]


def test_multipliers_and_shifts_by_hand() -> None:
    for scale, bits, expected in ((0.3, 3, (4, 4)), (0.5, 4, (8, 4)), (3.0, 2, (3, 0)), (10.0, 3, (5, -1))):
        multiplier, shift = as_multiplier_and_shift(torch.tensor(scale), bits)
        assert (float(multiplier), float(shift)) == expected
