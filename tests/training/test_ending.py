"""Runs that round what they have trained: in their last epoch, seen by its validation, kept as any other network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.compression.quantizers import quantization_of
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import ConfigError
from raydistill.parts import Optimizer
from raydistill.schedule import parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, evaluate_checkpoint, fit, load_model, read_history

TASK = Classification(load(DatasetConfig(name="digits")))


def run_of(folder: Path, epochs: int = 2, at: int = 1, **changes: Any) -> RunConfig:
    quantizer = {"class": "PostTrainLinearQuantizer", "bits_parameters": 3, "bits_activations": 4}
    mapping = {
        "version": 1,
        "pruners": {"all": {"class": "RankedPruner", "weights": ["fc1.weight"], "final_sparsity": 0.5}},
        "quantizers": {"ints": quantizer},
        "policies": [
            {"pruner": {"instance_name": "all"}, "epochs": [0]},
            {"quantizer": {"instance_name": "ints", "args": {"evidence_minibatches": 2}}, "epochs": [at]},
        ],
    }
    run = RunConfig(
        arch="simplenet_cifar", epochs=epochs, batch_size=128, lr=0.02, effective_train_size=0.3, out_dir=str(folder),
        schedule=parse_schedule(mapping, "s"), device="cpu", threads=1, deterministic=True,
    )  # fmt: skip
    return replace(run, **changes)


@pytest.mark.slow
def test_the_last_epoch_is_validated_and_kept_as_it_was_rounded(tmp_path: Path) -> None:
    first, last = list(fit(run_of(tmp_path), task=TASK))
    assert (tmp_path / "schedule.yaml").exists()
    path = tmp_path / "checkpoint.pt"
    evaluated = evaluate_checkpoint(path, TASK, "validation", device="cpu")
    assert evaluated.metrics == last.metrics
    network = load_model(path)
    held = quantization_of(network)
    assert held is not None
    assert held.enabled
    weight = network.get_parameter("fc1.weight")
    assert int((weight == 0).sum()) == weight.numel() // 2
    assert first.metrics != last.metrics


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_last_epoch_rounds_the_same(tmp_path: Path) -> None:
    whole = list(fit(run_of(tmp_path / "whole"), task=TASK))
    begun = fit(run_of(tmp_path / "killed"), task=TASK)
    next(begun)
    begun.close()
    (last,) = fit(run_of(tmp_path / "killed", resume=True), task=TASK)
    assert last.metrics == whole[-1].metrics
    assert list(fit(run_of(tmp_path / "killed", resume=True), task=TASK)) == []
    assert [epoch.metrics for epoch in read_history(tmp_path / "killed" / "checkpoint.pt")] == [
        epoch.metrics for epoch in whole
    ]


@pytest.mark.slow
def test_nothing_is_trained_where_there_are_no_epochs(tmp_path: Path) -> None:
    list(fit(run_of(tmp_path / "dense", 1, schedule=None), task=TASK))
    dense = str(tmp_path / "dense" / "checkpoint.pt")
    (only,) = fit(run_of(tmp_path / "rounded", 0, 0, init_from=dense), task=TASK)
    before, after = load_model(dense), load_model(tmp_path / "rounded" / "checkpoint.pt")
    assert only.train_loss is None
    torch.testing.assert_close(before.get_parameter("fc2.weight"), after.get_parameter("fc2.weight"), rtol=0, atol=0)
    assert quantization_of(after) is not None


@pytest.mark.parametrize("at", [0, 2])
def test_another_epoch_than_the_last_is_refused(at: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"policies\[1\].epochs: .* got \[{at}\]; give epochs: \[1\]"):
        next(fit(run_of(tmp_path, at=at), task=TASK))


def test_averaged_weights_are_refused_beside_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.optimizer.ema: stands beside a policy that rounds"):
        next(fit(run_of(tmp_path, optimizer=Optimizer(ema=0.9)), task=TASK))
