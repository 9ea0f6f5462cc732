"""Evidence before epochs: what a network loses that is pruned at once, asked for once and kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from raydistill import datasets
from raydistill.datasets import DatasetConfig
from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.sweep import evidence
from raydistill.sweep.evidence import ensure_evidence, losses_of, pruned, recalibrate
from raydistill.tasks import TRAIN, VALIDATION, Loading
from raydistill.tasks.classification import Classification
from tests.sweep.sessions import session_of

DIGITS = Classification(datasets.load(DatasetConfig("digits")))
CPU = torch.device("cpu")


@pytest.mark.slow
def test_a_loss_is_that_of_the_network_with_its_smallest_weights_gone() -> None:
    torch.manual_seed(0)
    model = DIGITS.network("simplenet_cifar", {}).eval()
    with torch.no_grad():
        model.fc3.weight.mul_(20)
    body = {
        "class": "AutomatedGradualPruner",
        "initial_sparsity": 0.0,
        "final_sparsity": 0.7,
        "weights": ["fc1.weight"],
    }
    policy = {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}
    schedule = parse_schedule({"version": 1, "pruners": {"agp": body}, "policies": [policy]}, "s")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dense, pruned = losses_of(model, DIGITS, [None, schedule], "cpu")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with torch.no_grad():
        flat = model.fc1.weight.abs().flatten()
        model.fc1.weight[model.fc1.weight.abs() <= flat.sort().values[int(0.7 * len(flat)) - 1]] = 0
    loading = Loading(CPU, 1024)
    by_hand = DIGITS.evaluate(model, DIGITS.feed(VALIDATION, loading), loading)["loss"]
    assert pruned == pytest.approx(by_hand, abs=1e-5)
    assert dense != pytest.approx(pruned, abs=1e-5)


@pytest.mark.slow
def test_batch_norms_see_training_data_anew() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.Flatten(), nn.LazyLinear(10)).eval()
    model(torch.zeros(1, *DIGITS.example_input()[0].shape[1:]))
    recalibrate(model, DIGITS, CPU)
    batches = [b for b, _ in zip(DIGITS.feed(TRAIN, Loading(CPU, evidence._ROWS)).epoch(0), range(8), strict=False)]
    means = torch.stack([images.mean(dim=(0, 2, 3)) for images, _ in batches])
    assert torch.allclose(model[0].running_mean, means.mean(0), atol=1e-4)
    assert not model.training


def normed(level: float) -> tuple[nn.Module, ScheduleSpec]:
    """A network whose batch norms have seen something else, and what prunes one of its layers."""
    torch.manual_seed(0)
    model = DIGITS.network("plain20_cifar", {}).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(0.5)
    body = {
        "class": "AutomatedGradualPruner",
        "initial_sparsity": 0.0,
        "final_sparsity": level,
        "weights": ["conv1.weight"],
    }
    policy = {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}
    return model, parse_schedule({"version": 1, "pruners": {"agp": body}, "policies": [policy]}, "s")


def test_what_is_pruned_at_once_has_norms_of_what_it_sees() -> None:
    model, schedule = normed(0.5)
    found = pruned(schedule, model, DIGITS, CPU)
    assert not found.training
    assert (found.conv1.weight == 0).float().mean() == pytest.approx(0.5, abs=0.01)
    seen = [b for b, _ in zip(DIGITS.feed(TRAIN, Loading(CPU, evidence._ROWS)).epoch(0), range(8), strict=False)]
    with torch.no_grad():
        mean = torch.stack([found.conv1(images).mean(dim=(0, 2, 3)) for images, _ in seen]).mean(0)
    assert torch.allclose(found.bn1.running_mean, mean, atol=1e-4)
    assert found.bn1.momentum == 0.1
    assert torch.all(model.bn1.running_mean == 0.5)
    assert torch.all(model.conv1.weight != 0)


@pytest.mark.slow
def test_what_the_journal_holds_is_not_asked_for_again(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    levels = {"per_layer": {"weights": ["fc1.weight", "fc2.weight"], "final_sparsity": {"uniform": [0.05, 0.95]}}}
    found = []
    for again in (False, True):
        session = session_of(write_sweep, tmp_path, ("search", levels), ("warm_start", {"auto": 20}))
        if not again:
            session.ledger.judged([1.0 + number % 7 for number in range(20)])
        ensure_evidence(session)  # without Ray: it would have to be started to ask
        searcher = session.plan.searcher
        assert searcher.origin(0) == "levels by evidence"
        found.append([searcher.suggest(trial, (), [4]) for trial in range(10)])
    assert found[0] == found[1]


def test_a_searcher_without_a_pool_is_asked_for_nothing(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    session = session_of(write_sweep, tmp_path)
    before = session.plan
    ensure_evidence(session)
    assert session.plan is before
