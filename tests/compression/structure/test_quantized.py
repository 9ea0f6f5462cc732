"""A quantization, the record of it, and its saved form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from raydistill.compression.quantizers import MENU, Plan, quantization_of
from raydistill.compression.structure import Quantized, replay, structure_from, structure_state
from raydistill.errors import CheckpointError
from tests.compression.structure.test_thinned import through_a_file

CLASSES = [name for name in MENU if name != "PostTrainLinearQuantizer"]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def inputs() -> torch.Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def plan_of(name: str, **arguments: Any) -> Plan:
    quantizer = MENU[name]("q", **{"bits_activations": 4, "bits_weights": 4, **arguments})
    return quantizer.plan(network(), (inputs(),))


@pytest.mark.parametrize("name", CLASSES)
def test_it_is_made_again_to_a_fresh_network_and_takes_its_weights(name: str) -> None:
    model, change = network(), Quantized(plan_of(name))
    change.apply(model)
    for _ in range(3):  # ranges, where there are some
        model(inputs())
    model.eval()
    saved = through_a_file({"model": model.state_dict(), "structure": structure_state([change])})
    (read,) = structure_from(saved["structure"])
    assert read == change
    fresh = replay(network().eval(), [read])
    fresh.load_state_dict(saved["model"])
    with torch.no_grad():
        assert torch.equal(fresh(inputs()), model(inputs()))
        assert not torch.equal(fresh(inputs()), network()(inputs()))


def test_whether_it_rounds_is_kept_with_the_weights() -> None:
    model, change = network(), Quantized(plan_of("DorefaQuantizer"))
    change.apply(model)
    held = quantization_of(model)
    assert held is not None
    held.enabled = False
    fresh = replay(network(), [change])
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(inputs()), network()(inputs()))


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({}, "structure\\[0\\]: must say weights, activations and inputs"),
        ({"weights": {"0.weight": 3}, "activations": [], "inputs": []}, "weights.0.weight: must say a kind"),
        ({"weights": {}, "activations": [{"name": "1"}], "inputs": []}, "activations\\[0\\]: must say name, module"),
    ],
)
def test_what_is_no_record_is_refused(state: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        structure_from([{"change": "quantized", **state}])


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"9.weight": {"kind": "linear", "args": {"bits": 8}}}, "the model has no such weight, got '9.weight'"),
        ({"0.weight": {"kind": "os:system", "args": {"bits": 8}}}, "kind: is not known, got 'os:system'"),
        ({"0.weight": {"kind": "linear", "args": {"bits": 64}}}, "bits: must be a whole number from 1 to 32, got 64"),
        ({"0.weight": {"kind": "linear", "args": {"bits": 8, "x": 1}}}, "args: do not fit"),
        ({"0.weight": {"kind": "linear", "args": {"bits": 8, "mode": "UP"}}}, "args: do not fit"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(weights: dict[str, Any], says: str) -> None:
    (change,) = structure_from([{"change": "quantized", "weights": weights, "activations": [], "inputs": []}])
    model = network()
    with pytest.raises(CheckpointError, match=says):
        change.apply(model)
    assert quantization_of(model) is None


def test_a_network_is_quantized_once() -> None:
    model, change = network(), Quantized(plan_of("DorefaQuantizer"))
    change.apply(model)
    with pytest.raises(CheckpointError, match="the network is quantized already"):
        change.apply(model)
