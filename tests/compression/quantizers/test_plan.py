"""Plans are plain values, and say in a line what a network lacks."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from raydistill.compression.quantizers.activations import FixedClip, TrackedRange
from raydistill.compression.quantizers.plan import Plan, Rounding, planned
from raydistill.compression.quantizers.points import Point
from raydistill.compression.quantizers.weights import LinearWeight
from raydistill.errors import CheckpointError

PLAN = Plan(
    {"0.weight": planned(LinearWeight(4, "SYMMETRIC", 0))},
    ((Point("1", "1", "relu", 0), planned(FixedClip(3))),),
    (planned(TrackedRange(8)),),
)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.ReLU())


def test_it_goes_through_json_and_is_carried_out() -> None:
    again = Plan.from_state(json.loads(json.dumps(PLAN.to_state())))
    assert again == PLAN
    assert again
    assert not Plan()
    model = network()
    held = again.carry_out(model)
    assert held.weight_names() == ["0.weight"]
    assert len(held.inputs) == 1
    found = model.eval()(torch.rand(5, 3))
    assert set((found * 7).round().tolist()[0]) <= set(range(8))


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({}, "must say weights, activations and inputs"),
        (
            {"weights": {"0.wieght": {"kind": "linear", "args": {"bits": 4}}}},
            "has no such weight, got '0.wieght'; did you",
        ),
        ({"weights": {"0.weight": {"kind": "liner", "args": {"bits": 4}}}}, "is not known, got 'liner'"),
        ({"weights": {"0.weight": {"kind": "linear", "args": {"bits": 99}}}}, "must be a whole number from 1 to 32"),
        ({"weights": {"0.weight": {"kind": "linear", "args": {"bits": 4, "mood": 1}}}}, "do not fit"),
        ({"weights": {"0.weight": {"kind": "linear", "args": {"bits": 4, "mode": "X"}}}}, "do not fit"),
        ({"weights": {"0.weight": 3}}, "must say a kind and its args"),
        ({"activations": [{"kind": "clipped", "args": {"bits": 4}}]}, "must say name, module, function, position"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(state: dict[str, Any], text: str) -> None:
    whole = {"weights": {}, "activations": [], "inputs": [], **state} if state else state
    with pytest.raises(CheckpointError) as error:
        Plan.from_state(whole).carry_out(network())
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_a_quantizer_is_planned_by_its_name_and_arguments() -> None:
    assert planned(FixedClip(3, 2.0)) == Rounding("clipped", {"bits": 3, "highest": 2.0})
