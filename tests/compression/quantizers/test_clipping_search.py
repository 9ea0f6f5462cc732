"""Clipping values by the network's loss: where each step has to end is known beforehand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from raydistill.compression.quantizers.clipping_search import (
    Clipping,
    best_norm,
    clippings,
    least_norm,
    search_clipping,
    stretched,
)
from raydistill.compression.quantizers.grid import Grid, Mode, grid_of
from raydistill.compression.quantizers.histograms import Histogram, histogram_of
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.plan import plan_of
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.quantizers.statistics import collect
from raydistill.compression.quantizers.weights import FixedWeight
from raydistill.errors import ConfigError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    model[0].weight.data[0, 0] = 3.0  # an outlier makes the whole range a bad choice
    return model


X = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))


def quantized(mode: str = "SYMMETRIC", bits: int = 4) -> tuple[nn.Module, Quantization, dict[str, Histogram]]:
    model = network()
    known = collect(model, (X,), lambda: [(X,)], histograms=True)
    quantizer = PostTrainLinearQuantizer("q", bits, bits, mode=mode)
    held = quantizer.find(model, (X,), known).carry_out(model)
    counted = {point.key: known[point.name].output.histogram for point in held.points if point.name in known}
    return model, held, {key: found for key, found in counted.items() if found is not None}


def off(model: nn.Module) -> float:
    with torch.no_grad():
        return float((model(X) - network()(X)).square().mean())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["SYMMETRIC", "ASYMMETRIC_UNSIGNED"])
def test_the_loss_falls_with_each_step_and_the_best_is_what_is_left(mode: str) -> None:
    model, held, counted = quantized(mode)
    found = search_clipping(clippings(model, held, counted), lambda: off(model), max_iterations=2, both_ends=True)
    losses = [found.losses[step] for step in ("before", "each by itself", "together")]
    assert losses[2] < losses[1] < losses[0]
    assert off(model) == pytest.approx(losses[2])
    assert set(found.scales) >= {"0.weight", "2.weight"}


@pytest.mark.slow
def test_the_plan_and_the_state_of_the_best_make_it_again() -> None:
    model, held, counted = quantized()
    search_clipping(clippings(model, held, counted), lambda: off(model), init=2.0, max_evaluations=40)
    again = network()
    plan_of(held).carry_out(again)
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(X), model(X))


@pytest.mark.slow
def test_the_number_of_evaluations_is_held_to() -> None:
    model, held, counted = quantized()
    asked = []

    def loss() -> float:
        asked.append(1)
        return off(model)

    found = search_clipping(clippings(model, held, counted), loss, init="NONE", max_evaluations=25)
    assert found.evaluations == len(asked) <= 60  # Powell looks at it at the end of a line only


def test_weights_over_their_own_range_are_fixed_and_give_what_they_gave() -> None:
    model, held, counted = quantized()
    with torch.no_grad():
        before = model(X)
    found = clippings(model, held, counted)
    assert isinstance(held.weight("0.weight"), FixedWeight)
    with torch.no_grad():
        assert torch.equal(model(X), before)
    assert {clipping.key for clipping in found} >= {"0.weight", "2.weight"}


@pytest.mark.slow
def test_a_tensors_own_error_is_least_where_it_says() -> None:
    model, held, counted = quantized()
    for clipping in clippings(model, held, counted):
        if clipping.key != "0.weight":
            continue
        values = model[0].weight.detach()
        for p in (1.0, 2.0, 4.0):
            share = least_norm(clipping, p)

            def error(by: float, p: float = p, clipping=clipping, values=values) -> float:
                return float((stretched(clipping.grid, by, by).nearest(values) - values).abs().pow(p).sum())

            assert error(share) <= min(error(step / 20) for step in range(1, 21)) * 1.1
        assert least_norm(clipping, 1.0) <= least_norm(clipping, 4.0)


def test_a_range_is_stretched_on_either_side_of_zero() -> None:
    grid = grid_of(-1.0, 3.0, 8, Mode.ASYMMETRIC_UNSIGNED)
    half = stretched(grid, 0.5, 0.5)
    assert float(half.scale) == pytest.approx(float(grid.scale) / 2)
    assert float(half.zero_point) == float(grid.zero_point)
    one = stretched(grid, 1.0, 1 / 3)
    assert float(one.scale) == pytest.approx(2 / 255, rel=0.02)
    assert float(one.nearest(torch.zeros(1))) == 0.0


def test_a_parabola_has_its_lowest_point() -> None:
    assert best_norm([2, 3, 4], [(p - 2.6) ** 2 + 1 for p in (2, 3, 4)]) == pytest.approx(2.6)
    assert best_norm([2, 3, 4], [(p - 9.0) ** 2 for p in (2, 3, 4)]) == 4.0
    assert best_norm([2, 3, 4], [1.0, 2.0, 1.5]) == 2.0  # it opens downwards


def test_what_cannot_be_is_said() -> None:
    model, held, counted = quantized()
    found = clippings(model, held, counted)
    with pytest.raises(ConfigError, match="lapq_method: must be one of Powell"):
        search_clipping(found, lambda: 0.0, method="Newton")
    with pytest.raises(ConfigError, match="lapq_init_mode: must be LP, NONE or a number"):
        search_clipping(found, lambda: 0.0, init="GUESS")
    with pytest.raises(ConfigError, match="has no ranges to search"):
        search_clipping([], lambda: 0.0)


class Taken:
    """A range that is searched: the grid it was told last."""

    def __init__(self, key: str, grid: Grid, values: Histogram | None = None) -> None:
        self.grid = grid
        self.clipping = Clipping(key, grid, self.take, values)

    def take(self, grid: Grid) -> None:
        self.grid = grid

    @property
    def ends(self) -> tuple[float, float]:
        low, high = self.grid.ends
        return float(low), float(high)


def test_which_ranges_have_two_ends() -> None:
    two = {mode: Taken("a", grid_of(-1.0, 3.0, 4, mode)).clipping.two_sided for mode in Mode}
    assert two == {Mode.SYMMETRIC: False, Mode.SYMMETRIC_RESTRICTED: False, Mode.ASYMMETRIC_UNSIGNED: True,
                   Mode.ASYMMETRIC_SIGNED: True}  # fmt: skip
    assert not Taken("a", grid_of(0.0, 3.0, 4, Mode.ASYMMETRIC_UNSIGNED)).clipping.two_sided
    assert not Taken("a", grid_of(0.0, 3.0, 4, Mode.ASYMMETRIC_SIGNED)).clipping.two_sided
    one = stretched(grid_of(-1.0, 3.0, 8, Mode.ASYMMETRIC_UNSIGNED), 1.0, 1 / 3)
    assert one.zero_point.tolist() == 128.0  # zero is in the middle of -1 ... 1
    assert one.nearest(torch.tensor([-5.0, 5.0])).tolist() == pytest.approx([-1.0, 1.0], abs=0.02)


@pytest.mark.parametrize("both_ends", [False, True])
def test_the_search_finds_the_ranges_that_the_loss_wants_and_leaves_them_so(both_ends: bool) -> None:
    a = Taken("a", grid_of(-8.0, 8.0, 8, Mode.SYMMETRIC_RESTRICTED))
    b = Taken("b", grid_of(-4.0, 4.0, 8, Mode.ASYMMETRIC_UNSIGNED))
    below = -1.0 if both_ends else -3.0
    asked = []

    def loss() -> float:
        asked.append((a.ends[1] - 4.0) ** 2 + (b.ends[0] - below) ** 2 + (b.ends[1] - 3.0) ** 2)
        return asked[-1]

    found = search_clipping([a.clipping, b.clipping], loss, init="NONE", both_ends=both_ends)
    assert found.scales["a"] == pytest.approx((0.5, 0.5), abs=0.02)
    assert found.scales["b"] == pytest.approx((0.25 if both_ends else 0.75, 0.75), abs=0.03)
    assert (a.ends[1], *b.ends) == pytest.approx((4.0, below, 3.0), abs=0.15)
    assert (
        found.losses["before"]
        == found.losses["each by itself"]
        == asked[0]
        == pytest.approx(16 + (4 + below) ** 2 + 1, abs=0.2)
    )
    assert found.losses["together"] == asked[-1] == min(asked)
    assert found.evaluations == len(asked)


def test_hops_leave_a_well_for_a_deeper_one() -> None:
    a = Taken("a", grid_of(-8.0, 8.0, 8, Mode.SYMMETRIC_RESTRICTED))

    def wells() -> float:
        share = a.ends[1] / 8
        return min(20 * (share - 1.0) ** 2 + 0.03, 20 * (share - 0.85) ** 2)

    stays, hops = (
        search_clipping([a.clipping], wells, init="NONE", method="Nelder-Mead", basin_hops=hops) for hops in (0, 20)
    )
    assert stays.scales["a"][0] == pytest.approx(1.0, abs=0.02)
    assert hops.scales["a"][0] == pytest.approx(0.85, abs=0.02)
    assert hops.evaluations > 5 * stays.evaluations


def test_a_loss_that_is_no_number_is_never_the_best_and_ranges_keep_within_bounds() -> None:
    a = Taken("a", grid_of(-8.0, 8.0, 8, Mode.SYMMETRIC_RESTRICTED))
    seen = []

    def loss() -> float:
        seen.append(a.ends[1] / 8)
        return math.nan if a.ends[1] < 4.0 else a.ends[1]

    for method in ("Nelder-Mead", "COBYLA", "Powell"):
        found = search_clipping([a.clipping], loss, init="NONE", method=method, max_iterations=20)
        assert 0.499 <= found.scales["a"][0] < 0.7
    wide = search_clipping([a.clipping], lambda: -a.ends[1], init="NONE", max_iterations=5)
    assert wide.scales["a"][0] == pytest.approx(1.5, abs=0.05)
    assert 0.049 <= min(seen) <= max(seen) <= 1.51


def test_where_the_search_begins() -> None:
    values = histogram_of(torch.cat([torch.linspace(-1.0, 1.0, 200), torch.tensor([8.0])]), -1.0, 8.0)
    grid = grid_of(-8.0, 8.0, 3, Mode.SYMMETRIC_RESTRICTED)
    a, b = Taken("a", grid, values), Taken("b", grid)
    assert least_norm(b.clipping, 2.0) == 1.0
    shares = {p: least_norm(a.clipping, p) for p in (1.0, 2.0, 4.0)}

    def error(by: float, p: float) -> float:
        off = (stretched(grid, by, by).nearest(values.middles.float()) - values.middles.float()).abs().double()
        return float((values.counts * off**p).sum())

    for p, share in shares.items():
        assert share == min((step / 80 for step in range(80, 0, -1)), key=lambda by, p=p: error(by, p))
    assert shares[1.0] < shares[4.0]
    tried: list[float] = []

    def flat() -> float:
        tried.append(a.ends[1] / 8)
        return 1.0

    for init, first in ((1.0, shares[1.0]), ("NONE", 1.0)):
        tried.clear()
        found = search_clipping([a.clipping, b.clipping], flat, init, max_evaluations=2)
        assert tried == pytest.approx([1.0, first, 1.0], abs=1e-4)
        assert found.evaluations == 3
        assert found.scales == {"a": (1.0, 1.0), "b": (1.0, 1.0)}
    tried.clear()
    search_clipping([a.clipping], flat, max_evaluations=1)
    assert len(tried) == 1 + 5 + 1 + 1
    assert tried[0] == pytest.approx(1.0)
    assert tried[1:6] == pytest.approx([least_norm(a.clipping, p) for p in (2.0, 2.5, 3.0, 3.5, 4.0)], abs=1e-4)
