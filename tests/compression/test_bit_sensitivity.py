"""Each weight rounded by itself: what is measured, in which order, and what the curves say a weight bears."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from raydistill.compression.bit_sensitivity import (
    RoundedPoint,
    analyse_bits,
    borne_bits,
    checked_steps,
    roundable,
)
from raydistill.compression.quantizers import QuantAwareTrainRangeLinearQuantizer
from raydistill.compression.sensitivity import read_sensitivity_csv, sensitivity_csv, sensitivity_png
from raydistill.errors import ConfigError, DataError
from raydistill.metrics import Metric
from tests.two_layers import TwoLayers


def evaluate(model: nn.Module) -> dict[str, float]:
    return {name: float(weight.detach().double().abs().sum()) for name, weight in model.named_parameters()}


def by_hand(weight: torch.Tensor, bits: int) -> float:
    """The sum of absolute values of a weight that is rounded, each row over its own range."""
    total = 0.0
    for row in weight.detach().flatten(1).numpy():  # of 32 bits: the largest lies in the middle between two numbers
        step = np.abs(row).max() / np.float32((2**bits - 1) / 2)
        total += np.abs(np.clip(np.round(row / step), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) * step).sum()
    return float(total)


def test_one_weight_is_rounded_and_nothing_is_left_of_it(model: TwoLayers) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dense = evaluate(model)
    found = list(analyse_bits(model, evaluate, (32, 4, 2)))
    assert [(point.weight, point.bits) for point in found] == [
        (name, bits) for name in ("conv.weight", "fc.weight") for bits in (32, 4, 2)
    ]
    for point in found:
        for name, value in point.metrics.items():
            rounded = name == point.weight and point.bits < 32
            expected = by_hand(model.get_parameter(name), point.bits) if rounded else dense[name]
            assert value == pytest.approx(expected, rel=1e-4), (point, name)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_known_is_not_measured_again_and_floats_once(model: TwoLayers) -> None:
    asked: list[int] = []

    def counting(network: nn.Module) -> dict[str, float]:
        asked.append(1)
        return evaluate(network)

    measuring = analyse_bits(model, counting, (32, 8, 4))
    first = [next(measuring) for _ in range(2)]
    measuring.close()
    again = list(analyse_bits(model, counting, (32, 8, 4), known=first))
    assert again[:2] == first
    assert len(asked) == 2 + 3  # the rest but for the float network, which is known


@pytest.mark.slow
def test_a_table_of_bits_is_read_as_it_was_and_drawn(model: TwoLayers, tmp_path) -> None:
    found = tuple(analyse_bits(model, evaluate, (32, 8, 4)))
    (tmp_path / "a.csv").write_text(sensitivity_csv(found))
    assert (tmp_path / "a.csv").read_text().startswith("weight,bits,conv.weight,")
    assert read_sensitivity_csv(tmp_path / "a.csv", RoundedPoint) == found
    with pytest.raises(DataError, match="is not a table of sensitivities"):
        read_sensitivity_csv(tmp_path / "a.csv")
    sensitivity_png(found, tmp_path / "a.png", "fc.weight")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("text", ["", "8,", "eight", "1", "17", "8.5", "-4", "٤"])
def test_wrong_bits_are_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="bits: must be whole numbers from 2 to 16"):
        checked_steps(text)
    assert checked_steps("4, 8,2,8") == (8, 4, 2)


def test_what_cannot_be_rounded_is_said(model: TwoLayers) -> None:
    assert roundable(model) == {"conv.weight": 0, "fc.weight": 0}
    with pytest.raises(ConfigError, match=r"no weight of this name is rounded, got 'fc\.wight'"):
        next(analyse_bits(model, evaluate, (8,), ["fc.wight"]))
    with pytest.raises(ConfigError, match="no weight that is rounded"):
        roundable(nn.ReLU())
    QuantAwareTrainRangeLinearQuantizer("q", 8, 8).plan(model, (torch.ones(1, 3, 8, 8),)).carry_out(model)
    with pytest.raises(ConfigError, match="quantized already"):
        roundable(model)


def test_what_a_weight_bears_ends_at_the_first_that_costs_more() -> None:
    top1 = {"a": {32: 0.9, 8: 0.9, 4: 0.85, 3: 0.7, 2: 0.88}, "b": {32: 0.9, 8: 0.9}, "c": {32: 0.9, 8: 0.5, 4: 0.9}}
    points = [RoundedPoint(w, bits, {"m": value}) for w, curve in top1.items() for bits, value in curve.items()]
    higher = Metric("max", "fraction")
    assert borne_bits(points, "m", higher, 0.06) == {"a": (8, 4), "b": (8,), "c": ()}
    lower = [RoundedPoint(p.weight, p.bits, {"m": 1 - p.metrics["m"]}) for p in points]
    assert borne_bits(lower, "m", Metric("min"), 0.06) == {"a": (8, 4), "b": (8,), "c": ()}
    with pytest.raises(ConfigError, match="a was not measured as it is"):
        borne_bits([points[1]], "m", higher, 0.1)
