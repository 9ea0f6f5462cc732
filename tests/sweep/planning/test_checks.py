"""What only a network tells of a sweep's faults, each a line before anything starts."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from raydistill.errors import ConfigError
from raydistill.search import SearchSpace
from raydistill.search.space import expand
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.checks import has_curves
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.tasks.classification import ImageShape
from tests.sweep.planning.trunks import BRANCHES

CIFAR = ImageShape(10, (3, 32, 32))
WriteSweep = Callable[..., Path]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ([("trunk", ...)], "search.trunk.sparsity: is for a sweep with a trunk; add one, as in 'trunk: {"),
        ([("search", {"training.lr": {"uniform": [0.1, 0.2]}})], "trunk: is not used: no trial branches off; add"),
        ([("search", {"trunk.sparsty": {"choice": [0.5]}})], "search.trunk.sparsty: unknown key; did you mean"),
        ([("search", {"trunk.sparsity": {"choice": [1, 2]}})], "search.trunk.sparsity: must draw fractions, got"),
        ([("trunk/epochs", 0)], "trunk.epochs: must be at least 1, got 0"),
        ([("trunk/final_sparsity", 0.1)], "trunk.final_sparsity: must be at least initial_sparsity (0.2), got 0.1"),
        ([("trunk/final_sparsity", 1)], "trunk.final_sparsity: must be below 1, got 1"),
        ([("trunk/weights", ["fcc*"])], "trunk.weights: no weight of the model matches, got 'fcc*'"),
        ([("trunk/ranking", "magnitud")], "trunk.ranking: must be one of"),
        ([("train", "own:loop")], "trunk: has no use beside a training loop of one's own"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_trunk_is_one_line(
    write_sweep: WriteSweep, changes: list[tuple[str, object]], line: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sweep(load_sweep(write_sweep(*BRANCHES, *changes)), CIFAR)
    found = [str(fault) for fault in caught.value.faults]
    assert any(f"space.yaml: {line}" in fault for fault in found), found


@pytest.mark.slow
def test_a_quantizer_of_trained_networks_acts_in_the_last_epoch(write_sweep: WriteSweep) -> None:
    def planned(epoch: int) -> None:
        file = write_sweep(
            ("training/epochs", 4),
            ("schedule/quantizers", {"ints": {"class": "PostTrainLinearQuantizer", "bits_parameters": 4}}),
            ("schedule/policies", [{"quantizer": {"instance_name": "ints"}, "epochs": [epoch]}]),
            ("search", {"per_layer": [{"weights": ["fc*.weight"], "bits_weights": {"choice": [2, 8]}}]}),
            ("searcher", {"name": "random"}),
        )
        trials = plan_sweep(load_sweep(file), CIFAR).trials
        overrides = [yaml.safe_load(trial.schedule_text)["quantizers"]["ints"]["overrides"] for trial in trials]
        assert {bits["bits_weights"] for said in overrides for bits in said.values()} == {2, 8}

    planned(3)
    with pytest.raises(ConfigError, match=r"so it acts in the last epoch alone, got \[2\]; give epochs: \[3\]"):
        planned(2)


AMC = ("searcher", {"name": "amc"})
LEVELS = {"per_layer": {"weights": ["fc1.weight", "fc2.weight"], "final_sparsity": {"uniform": [0.1, 0.9]}}}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ([("search", {"training.lr": {"uniform": [0.1, 0.2]}})],
         "searcher: additive is for levels of layers, and none is searched; search a fraction with per_layer, or "),
        ([("objectives", {"top1": "max"})],
         "searcher: additive weighs one metric of the task against one figure of the network, got ['top1']"),
        ([("objectives", {"top1": "max", "sparsity": "max", "macs": "min"})],
         "searcher: additive weighs one metric of the task against one figure of the network, got ['top1', "),
        ([("objectives", {"macs": "min", "sparsity": "max"})], "searcher: additive weighs one metric of the task"),
        ([AMC], "searcher: amc wants a bound on sparsity; as in constraints: ['sparsity >= 0.8'], or protocol: acc"),
        ([AMC, ("objectives", {"top1": "max", "macs": "min"}), ("constraints", ["sparsity >= 0.5"])],
         "searcher: amc wants a bound on macs; as in constraints: ['macs <= 0.5x'], or protocol: accuracy-guaranteed"),
    ],
)  # fmt: skip
def test_a_searcher_that_weighs_damages_has_to_have_what_it_weighs(
    write_sweep: WriteSweep, changes: list[tuple[str, object]], line: str
) -> None:
    file = write_sweep(("searcher", {"name": "additive"}), ("search", LEVELS), *changes)
    with pytest.raises(ConfigError) as caught:
        plan_sweep(load_sweep(file), CIFAR)
    (found,) = map(str, caught.value.faults)
    assert f"space.yaml: {line}" in found


@pytest.mark.parametrize(
    ("change", "has"),
    [
        (("objectives", {"top1": "max", "sparsity": "max"}), True),
        (("objectives", {"top1": "max", "loss": "min"}), False),
        (("objectives", {"top1": "max", "sparsity": "max", "macs": "min"}), False),
        (("train", "own:loop"), False),
        (("search", {"training.lr": {"uniform": [0.1, 0.2]}}), False),
    ],
)
def test_curves_are_there_where_levels_are_searched_for_two_figures(
    write_sweep: WriteSweep, change: tuple[str, object], has: bool
) -> None:
    sweep = load_sweep(write_sweep(("search", LEVELS), change))
    space = SearchSpace((*sweep.dimensions, *expand(sweep.per_layer, ["fc1.weight"], lambda entry: ["fc1.weight"])))
    assert has_curves(sweep, space) == has


def test_a_searcher_whose_library_is_not_there_is_a_line(
    write_sweep: WriteSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "botorch" else there(name))
    file = write_sweep(("searcher", {"name": "qnehvi", "startup": 4}), ("search", LEVELS))
    with pytest.raises(ConfigError) as caught:
        plan_sweep(load_sweep(file), CIFAR)
    (found,) = map(str, caught.value.faults)
    assert found.startswith(f"{file}: searcher: qnehvi needs BoTorch")
    assert "pip install 'raydistill[botorch]'" in found


@pytest.mark.parametrize("bound", [["sparsity >= 0.8"], ["sparsity >= 0.8", "top1_drop <= 0.1"]])
def test_a_searcher_with_its_bound_is_planned(write_sweep: WriteSweep, bound: list[str]) -> None:
    plan = plan_sweep(load_sweep(write_sweep(AMC, ("search", LEVELS), ("constraints", bound))), CIFAR)
    assert not plan.warnings


def test_a_bound_that_a_searcher_does_not_see_is_a_warning(write_sweep: WriteSweep) -> None:
    beside = ("constraints", ["macs <= 0.5x", "sparsity >= 0.8", "top1_drop <= 0.1"])
    plan = plan_sweep(load_sweep(write_sweep(AMC, ("search", LEVELS), beside)), CIFAR)
    (line,) = plan.warnings
    assert "space.yaml: constraints: amc does not steer by a bound that is no objective, got 'macs'" in line
    assert "it marks trials only" in line
    for searcher in ("additive", "evolution"):
        file = write_sweep(("searcher", {"name": searcher}), ("search", LEVELS), beside)
        assert not plan_sweep(load_sweep(file), CIFAR).warnings
