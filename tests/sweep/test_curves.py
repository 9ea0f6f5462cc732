"""Layers' damages are measured before the trials, once, and the searcher is told them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raydistill import datasets
from raydistill.compression.names import names_of
from raydistill.compression.one_shot import pruned_at_once
from raydistill.datasets import DatasetConfig
from raydistill.records import BASELINE, Scalar
from raydistill.schedule import ScheduleSpec, naming_weights, parse_schedule
from raydistill.search.observations import Observation
from raydistill.search.searchers import Searcher
from raydistill.sweep import curves, trials
from raydistill.sweep.curves import LEVELS, Alone, by_itself, damage_of, ensure_curves
from raydistill.sweep.session import Session
from raydistill.tasks import VALIDATION, Loading
from raydistill.tasks.classification import Classification
from raydistill.training.checkpoint import write_checkpoint
from tests.sweep.conftest import SWEEP
from tests.sweep.sessions import epoch, finished, is_in, session_of

DIGITS = Classification(datasets.load(DatasetConfig("digits")))


def network() -> nn.Module:
    torch.manual_seed(0)
    model = DIGITS.network("simplenet_cifar", {})
    with torch.no_grad():
        model.fc3.weight.mul_(20)
    return model.eval()


def schedule(**pruner: object) -> ScheduleSpec:
    body = {
        "class": "AutomatedGradualPruner",
        "initial_sparsity": 0.4,
        "final_sparsity": 0.5,
        "weights": ["*"],
        **pruner,
    }
    policy = {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}
    spec = parse_schedule({"version": 1, "pruners": {"agp": body}, "policies": [policy]}, "s")
    return naming_weights(spec, names_of(network()))


def alone(**pruner: object) -> Alone:
    spec = schedule(**pruner)
    return lambda weight, level: by_itself(spec, weight, "final_sparsity", level)


FILTERS = {"class": "L1RankedStructureParameterPruner_AGP", "group_type": "Filters", "weights": ["conv*.weight"]}


@pytest.mark.slow
def test_a_curve_is_how_much_the_loss_rises_with_the_layer_pruned_alone() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = damage_of(model, DIGITS, alone(), ["fc1.weight", "conv2.weight"], device="cpu")
    assert {name: [level for level, _ in points] for name, points in found.curves.items()} == {
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
    assert dict(found.curves["fc1.weight"])[0.7] == pytest.approx(pruned - dense, abs=1e-6)
    whole = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert found.sizes == pytest.approx(
        {"fc1.weight": model.fc1.weight.numel() / whole, "conv2.weight": model.conv2.weight.numel() / whole}, rel=1e-3
    )


@pytest.mark.slow
def test_a_layer_is_pruned_as_the_schedule_would_and_its_size_is_what_is_gone_from_all_layers() -> None:
    """Seven tenths of conv1's six filters are four: conv2 reads two channels then."""
    model = network()
    found = damage_of(model, DIGITS, alone(**FILTERS), ["conv1.weight"], figure="macs", device="cpu")
    first, second = 6 * 3 * 25 * 28 * 28, 16 * 6 * 25 * 10 * 10
    assert found.sizes["conv1.weight"] == pytest.approx(-(first + second) * 4 / 6 / 0.7, rel=1e-6)
    loading = Loading(torch.device("cpu"), 1024)
    feed = DIGITS.feed(VALIDATION, loading)
    dense = DIGITS.evaluate(model, feed, loading)["loss"]
    with torch.no_grad():
        going = model.conv1.weight.abs().sum((1, 2, 3)).argsort()[:4]
        model.conv1.weight[going] = 0
    pruned = DIGITS.evaluate(model, feed, loading)["loss"]
    assert dict(found.curves["conv1.weight"])[0.7] == pytest.approx(pruned - dense, abs=1e-6)


def test_a_weight_that_no_pruner_lists_is_pruned_by_single_weights() -> None:
    spec = schedule(weights=["conv1.weight"])
    masked = pruned_at_once(by_itself(spec, "fc1.weight", "final_sparsity", 0.3), network(), DIGITS.example_input())
    assert float((masked.fc1.weight == 0).float().mean()) == pytest.approx(0.3, abs=1e-3)
    assert all((weight != 0).all() for name, weight in masked.named_parameters() if name.startswith("conv"))


@pytest.mark.slow
def test_where_time_is_short_the_first_levels_are_measured_of_every_layer() -> None:
    found = damage_of(network(), DIGITS, alone(), ["fc1.weight", "fc2.weight"], "macs", "cpu", time_s=0.0)
    assert {name: [level for level, _ in points] for name, points in found.curves.items()} == {
        "fc1.weight": [0.7, 0.9], "fc2.weight": [0.7, 0.9],
    }  # fmt: skip
    assert found.sizes == {"fc1.weight": -48000.0, "fc2.weight": -10080.0}  # their own MACs: nothing was measured


def test_a_loss_that_is_no_number_is_as_bad_as_the_worst() -> None:
    rises = {("a", 0.5): 0.5, ("a", 0.9): float("nan")}
    assert curves._curves(rises) == {"a": [(0.5, 0.5), (0.9, 0.5)]}


FC1, FC2 = "per_layer.fc1.weight.final_sparsity", "per_layer.fc2.weight.final_sparsity"
BOTH = {"per_layer": {"weights": ["fc1.weight", "fc2.weight"], "final_sparsity": {"uniform": [0.05, 0.95]}}}


SIZES = {"fc1.weight": 0.8, "fc2.weight": 0.2}


def measured(session: Session, folder: Path, sizes: Mapping[str, float] = SIZES, **more: Any) -> None:
    """A journal in which the layers' curves stand, and the dense network beside it."""
    dense = folder / "dense.pt"
    run = {"arch": "simplenet_cifar", "model_args": {}}
    about = {**DIGITS.described(), "run": run, "precision": "fp32"}
    write_checkpoint(dense, {"model": network().state_dict(), **about})
    last = replace(epoch(0, 0.9, 0.0, str(dense)), footprint={"macs": 660_000.0})
    is_in(replace(finished(BASELINE, 0.9, 0.0, str(dense)), last=last), session)
    curves = {"fc1.weight": [(v / 50, (v / 50) ** 2) for v in range(1, 50)]}
    curves["fc2.weight"] = [(level, 9 * loss) for level, loss in curves["fc1.weight"]]
    session.ledger.measured(curves, sizes, **more)
    session.task.example_input = DIGITS.example_input


@pytest.mark.slow
def test_a_sweep_that_goes_on_places_its_trials_as_before(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    changes = (("search", BOTH), ("warm_start", [{FC1: 0.5}, "auto"]), ("num_samples", 20))
    rules = {"uniform": [{"fc1.weight": v / 10, "fc2.weight": v / 10} for v in range(1, 10)]}
    found = []
    for _ in range(2):
        session = session_of(write_sweep, tmp_path, *changes)
        if session.ledger.curves is None:
            measured(session, tmp_path, allocations=rules)
        else:
            measured_before = session.ledger.allocations
            assert measured_before == rules
            is_in(replace(finished(BASELINE, 0.9, 0.0, str(tmp_path / "dense.pt"))), session)
            session.task.example_input = DIGITS.example_input
        ensure_curves(session)
        searcher = session.plan.searcher
        found.append([searcher.suggest(trial, (), [4]) for trial in range(10)])
        draw = trials.drawn(session)
        origins = [draw(number, found[-1][number - 1]).origin for number in range(1, 11)]
        assert set(origins[:8]) == {"levels by curves", "levels by uniform"}
        assert origins[8:] == ["", ""]
    assert found[0] == found[1]
    assert all(values[FC1] > values[FC2] for values in found[0][:3])


@pytest.mark.slow
def test_a_bound_on_what_is_not_optimised_is_where_it_searches(
    write_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    """Parameters are optimised, the sparsity is bounded: the first trial lies on the bound, all of them keep it."""
    changes = (
        ("search", BOTH), ("searcher", {"name": "additive"}), ("constraints", ["sparsity >= 0.6"]),
        ("objectives", {"top1": "max", "parameters": "min"}),
    )  # fmt: skip
    session = session_of(write_sweep, tmp_path, *changes)
    assert not any("does not steer" in line for line in session.plan.warnings)
    measured(session, tmp_path, beside={"sparsity": {"fc1.weight": 0.78, "fc2.weight": 0.16}})
    ensure_curves(session)
    searcher = session.plan.searcher
    planned = [session.plan.draw(0, searcher.suggest(trial, (), [4])).planned_sparsity for trial in range(4)]
    assert min(planned) >= 0.6 - 1e-6
    assert planned[0] == pytest.approx(0.6, abs=0.02)


@pytest.mark.slow
def test_where_a_journal_does_not_say_what_layers_bring_their_weights_are_counted(
    write_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    changes = (("search", BOTH), ("searcher", {"name": "additive"}), ("constraints", ["sparsity >= 0.6"]))
    session = session_of(write_sweep, tmp_path, *changes)
    measured(session, tmp_path, {})
    ensure_curves(session)
    first = session.plan.draw(0, session.plan.searcher.suggest(0, (), [4]))
    assert first.planned_sparsity == pytest.approx(0.6, abs=0.02)


class Taking(Searcher):
    """Takes curves where there are such."""

    takes_curves = True
    told: tuple[object, ...] = ()

    def suggest(self, trial: int, seen: Sequence[Observation], stages: Sequence[int]) -> Mapping[str, Scalar]:
        return {}

    def with_curves(self, *told: object) -> Taking:
        found = Taking()
        found.told = told
        return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("objectives", {"top1": "max", "sparsity": "max"}), True),
        (("objectives", {"top1": "max", "loss": "min", "sparsity": "max"}), False),
    ],
)
def test_who_takes_curves_is_told_them_where_there_are_two_figures_to_weigh(
    write_sweep: Callable[..., Path], tmp_path: Path, change: tuple[str, object], told: bool
) -> None:
    session = session_of(write_sweep, tmp_path, ("search", BOTH), ("searcher", {"name": "sobol"}), change)
    session.plan = replace(session.plan, searcher=Taking())
    measured(session, tmp_path)
    ensure_curves(session)
    assert bool(session.plan.searcher.told) == told


@pytest.mark.ray
@pytest.mark.long  # the README's main job is such a sweep
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
