"""Layers' damages are measured before the trials, once, and the searcher is told them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from raydistill import datasets
from raydistill.datasets import DatasetConfig
from raydistill.sweep import curves
from raydistill.sweep.curves import LEVELS, damage_curves
from raydistill.tasks import VALIDATION, Loading
from raydistill.tasks.classification import Classification
from tests.sweep.conftest import SWEEP

DIGITS = Classification(datasets.load(DatasetConfig("digits")))


def network() -> nn.Module:
    torch.manual_seed(0)
    model = DIGITS.network("simplenet_cifar", {})
    with torch.no_grad():
        model.fc3.weight.mul_(20)
    return model.eval()


def test_a_curve_is_how_much_the_loss_rises_with_the_layer_pruned_alone() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = damage_curves(model, DIGITS, {"fc1.weight": "element", "conv2.weight": "filter"}, "cpu")
    assert {name: [level for level, _ in points] for name, points in found.items()} == {
        "conv2.weight": sorted(LEVELS), "fc1.weight": sorted(LEVELS),
    }  # fmt: skip
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    loading = Loading(torch.device("cpu"), 1024)
    feed = DIGITS.feed(VALIDATION, loading)
    dense = DIGITS.evaluate(model, feed, loading)["loss"]
    with torch.no_grad():  # by hand: the seven tenths of fc1 that are smallest
        flat = model.fc1.weight.abs().flatten()
        model.fc1.weight[model.fc1.weight.abs() <= flat.sort().values[int(0.7 * len(flat)) - 1]] = 0
    pruned = DIGITS.evaluate(model, feed, loading)["loss"]
    assert dict(found["fc1.weight"])[0.7] == pytest.approx(pruned - dense, abs=1e-6)


def test_where_time_is_short_the_first_levels_are_measured_of_every_layer() -> None:
    found = damage_curves(network(), DIGITS, {"fc1.weight": "element", "fc2.weight": "element"}, "cpu", time_s=0.0)
    assert {name: [level for level, _ in points] for name, points in found.items()} == {
        "fc1.weight": [0.7, 0.9], "fc2.weight": [0.7, 0.9],
    }  # fmt: skip


def test_a_loss_that_is_no_number_is_as_bad_as_the_worst() -> None:
    points = [curves.Point("a", 0.5, 0.5, {"loss": 2.0}), curves.Point("a", 0.9, 0.9, {"loss": float("nan")})]
    assert curves._curves(points, 1.5) == {"a": [(0.5, 0.5), (0.9, 0.5)]}


def test_a_layer_without_such_structures_is_pruned_by_single_weights() -> None:
    found = damage_curves(network(), DIGITS, {"fc1.weight": "filter"}, "cpu", time_s=0.0)
    assert found == damage_curves(network(), DIGITS, {"fc1.weight": "element"}, "cpu", time_s=0.0)


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_by_the_layers_damages_measures_them_once(
    write_sweep: Callable[..., Path], sweep_here: Callable[..., str], spared: None, tmp_path: Path
) -> None:
    levels = {"weights": ["conv1.weight", "fc1.weight", "fc2.weight"], "final_sparsity": {"uniform": [0.0, 0.99]}}
    file = write_sweep(
        ("search", {"per_layer": levels}), ("searcher", {"name": "additive", "startup": 2}), ("num_samples", 2),
        ("training/epochs", 3), ("schedule/pruners/agp/initial_sparsity", 0.0),
    )  # fmt: skip
    assert SWEEP["schedule"]["pruners"]["agp"]["weights"] == levels["weights"]
    said = sweep_here(file, "--storage", "sweeps")
    assert "measuring what each of 3 layers loses when it is pruned by itself" in said
    said = sweep_here(file, "--storage", "sweeps", "--num-samples", 5, "--resume")
    assert "measuring" not in said
    events = [json.loads(line) for line in (tmp_path / "sweeps" / "tiny" / "journal.jsonl").read_text().splitlines()]
    (measured,) = [event["curves"] for event in events if event["event"] == "curves"]
    assert sorted(measured) == levels["weights"]
    ended = [event["state"] for event in events if event["event"] == "trial_ended"]
    assert ended == ["finished"] * 5
    drawn = [e["record"]["values"] for e in events if e["event"] == "trial_started"]
    assert len({tuple(values.values()) for values in drawn}) == 5
