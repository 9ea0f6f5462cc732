"""A schedule's last masks at once: what a whole run would end with, if training moved no weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from raydistill.compression import planned_sparsity, sparsity
from raydistill.compression.one_shot import pruned_at_once
from raydistill.schedule import ScheduleSpec, parse_schedule

INPUT = (torch.randn(2, 3, 8, 8),)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 10),
    ).eval()  # fmt: skip


def schedule(**pruners: dict[str, Any]) -> ScheduleSpec:
    when = {"starting_epoch": 0, "ending_epoch": 5, "frequency": 1}
    policies = [{"pruner": {"instance_name": name}, **when} for name in pruners]
    return parse_schedule({"pruners": pruners, "policies": policies}, "s")


AGP = {"class": "AutomatedGradualPruner", "initial_sparsity": 0.1, "final_sparsity": 0.75, "weights": ["6.weight"]}
FILTERS = {
    "class": "L1RankedStructureParameterPruner_AGP", "group_type": "Filters", "initial_sparsity": 0.1,
    "final_sparsity": 0.5, "weights": ["0.weight"],
}  # fmt: skip


def test_the_smallest_are_pruned_to_the_final_level() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruned = pruned_at_once(schedule(agp=AGP, filters=FILTERS), model, INPUT)
    weight = before["6.weight"]
    smallest = weight.abs() <= weight.abs().flatten().sort().values[int(0.75 * weight.numel()) - 1]
    assert torch.equal(pruned.state_dict()["6.weight"], weight * ~smallest)
    norms = before["0.weight"].abs().sum(dim=(1, 2, 3))
    gone = (pruned.state_dict()["0.weight"] == 0).flatten(1).all(dim=1)
    assert sorted(gone.nonzero().flatten().tolist()) == sorted(norms.argsort()[:4].tolist())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_it_comes_to_what_is_planned() -> None:
    spec = schedule(agp=AGP, filters=FILTERS)
    planned, _ = planned_sparsity(spec, network(), INPUT)
    assert sparsity(pruned_at_once(spec, network(), INPUT))[0] == pytest.approx(planned)


@pytest.mark.parametrize("ranking", ["taylor", "apoz", "movement"])
def test_what_would_see_minibatches_first_is_ranked_by_magnitude(ranking: str) -> None:
    said = {
        "class": "RankedPruner", "final_sparsity": 0.5, "granularity": "Filters", "weights": ["0.weight"],
    }  # fmt: skip
    if ranking == "movement":
        said |= {"granularity": "Element"}
    found, plain = (
        pruned_at_once(schedule(p={**said, "ranking": by}), network(), INPUT).state_dict()["0.weight"]
        for by in (ranking, "l1")
    )
    assert torch.equal(found, plain)
    assert 0.4 < float((found == 0).float().mean()) < 0.6


def test_a_quantizer_rounds_the_weights() -> None:
    spec = parse_schedule({
        "quantizers": {"q": {"class": "DorefaQuantizer", "bits_activations": 8, "bits_weights": 2, "overrides": {}}},
        "policies": [{"quantizer": {"instance_name": "q"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}],
    }, "s")  # fmt: skip
    model = network()
    outputs = pruned_at_once(spec, model, INPUT)(*INPUT)
    assert not torch.allclose(outputs, model(*INPUT))
