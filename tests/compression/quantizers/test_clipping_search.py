"""Clipping values by the network's loss: where each step has to end is known beforehand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.compression.quantizers.clipping_search import (
    best_norm,
    clippings,
    least_norm,
    search_clipping,
    stretched,
)
from raydistill.compression.quantizers.grid import Mode, grid_of
from raydistill.compression.quantizers.histograms import Histogram
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
