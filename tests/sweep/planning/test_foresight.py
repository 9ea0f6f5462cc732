"""What a trial will cost, told before it is trained: held against what a trained one costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from raydistill.schedule import parse_schedule
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.foresight import foreseen, known_at_the_end, wants_foresight

EXAMPLE = (torch.randn(1, 3, 8, 8),)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding=1),
        nn.Flatten(),
        nn.Linear(256, 10),
    ).eval()


def filters(level: float) -> dict[str, float]:
    spec = parse_schedule({
        "pruners": {"f": {
            "class": "L1RankedStructureParameterPruner_AGP", "group_type": "Filters", "initial_sparsity": 0.0,
            "final_sparsity": level, "weights": ["0.weight"],
        }},
        "policies": [{"pruner": {"instance_name": "f"}, "starting_epoch": 0, "ending_epoch": 4, "frequency": 1}],
    }, "s")  # fmt: skip
    return foreseen(spec, network(), EXAMPLE)


def test_macs_and_sizes_of_the_network_as_it_will_be_deployed() -> None:
    """By hand: of 8 filters 6 go; 64 positions, 3 * 9 inputs of a filter, then 9 each of the 2 that are left."""
    found = filters(0.75)
    assert found["planned_macs"] == 64 * 2 * 27 + 64 * 4 * 2 * 9 + 2560
    parameters = 2 * 27 + 4 * 2 * 9 + 4 + 2560 + 10
    assert found["planned_parameters"] == parameters
    assert found["planned_size_bytes"] == 4 * parameters
    assert found["planned_latency_ms"] == found["planned_macs"]


@pytest.mark.slow
def test_more_is_less() -> None:
    costs = [filters(level)["planned_macs"] for level in (0.1, 0.3, 0.5, 0.8)]
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) > 2


def test_without_a_schedule_nothing_is_foreseen() -> None:
    assert foreseen(None, network(), EXAMPLE) == {}


def test_at_the_end_the_truth_takes_the_place_of_the_plan() -> None:
    assert known_at_the_end(0.4, {}) == {}
    assert known_at_the_end(0.4, {"macs": 5.0, "energy": 2.0}) == {
        "planned_sparsity": 0.4, "planned_macs": 5.0, "planned_energy": 2.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ([], False),
        ([("objectives", {"top1": "max", "macs": "min"})], True),
        ([("constraints", ["size_bytes <= 100000"])], True),
        ([("constraints", ["top1_drop <= 0.01", "sparsity >= 0.5"])], False),
    ],
)
def test_only_where_something_asks_for_it(
    write_sweep: Callable[..., Path], changes: list[tuple[str, object]], wanted: bool
) -> None:
    assert wants_foresight(load_sweep(write_sweep(*changes))) is wanted
