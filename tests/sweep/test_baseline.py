"""The baseline is known by what determines it: nothing less, nothing more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raydistill import datasets
from raydistill.datasets import Dataset, DatasetConfig
from raydistill.errors import CheckpointError
from raydistill.schedule import parse_schedule
from raydistill.sweep.baseline import adopted, baseline_hash, finished, given_baseline
from raydistill.tasks.classification import Classification
from raydistill.tasks.classification.fingerprint import fingerprint_of_dataset
from raydistill.training import RunConfig, fit, read_checkpoint
from raydistill.training.start import task_of

DECAY = {
    "lr_schedulers": {"decay": {"class": "CosineAnnealingLR", "T_max": 3}},
    "policies": [{"lr_scheduler": {"instance_name": "decay"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}],
}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return datasets.load(DatasetConfig(name="digits"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: Dataset) -> RunConfig:
    folder = tmp_path_factory.mktemp("dense")
    config = DatasetConfig(name="digits")
    run = RunConfig(
        "simplenet_cifar", dataset=config, epochs=2, precision="fp32", out_dir=str(folder), tensorboard=False
    )
    assert len(list(fit(run, task=Classification(digits)))) == 2
    return run


@pytest.mark.parametrize(
    "change",
    [
        {"arch": "resnet20_cifar"},
        {"model_args": {"width": 2}},
        {"epochs": 61},
        {"batch_size": 128},
        {"lr": 0.1},
        {"momentum": 0.8},
        {"weight_decay": 0.0},
        {"nesterov": True},
        {"seed": 1},
        {"precision": "bf16"},
        {"deterministic": True},
        {"schedule": parse_schedule(DECAY, "s")},
    ],
)
def test_what_determines_a_baseline(change: dict[str, Any]) -> None:
    run = RunConfig("simplenet_cifar")
    assert baseline_hash(replace(run, **change), "f") != baseline_hash(run, "f")


def test_other_images_are_another_baseline() -> None:
    assert baseline_hash(RunConfig("simplenet_cifar"), "f") != baseline_hash(RunConfig("simplenet_cifar"), "g")


@pytest.mark.parametrize(
    "change", [{"out_dir": "/elsewhere"}, {"threads": 7}, {"device": "cpu"}, {"tensorboard": False}, {"resume": False}]
)
def test_where_it_is_trained_does_not_count(change: dict[str, Any]) -> None:
    run = RunConfig("simplenet_cifar", schedule=parse_schedule(DECAY, "one.yaml"))
    other = replace(run, schedule=parse_schedule(DECAY, "two.yaml"), **change)
    assert baseline_hash(other, "f") == baseline_hash(run, "f")


@pytest.mark.slow
def test_fingerprint_is_of_images_labels_and_split(digits: Dataset) -> None:
    before = fingerprint_of_dataset(digits)
    assert fingerprint_of_dataset(datasets.load(DatasetConfig(name="digits"))) == before
    assert fingerprint_of_dataset(replace(digits, used_fallback=True, warning="not what you asked for")) == before
    assert fingerprint_of_dataset(datasets.load(DatasetConfig(name="digits", split_seed=1))) != before
    labels = digits.train_labels.copy()
    labels[0] = (labels[0] + 1) % 10
    assert fingerprint_of_dataset(replace(digits, train_labels=labels)) != before
    images = np.array(digits.test_images)  # type: ignore[union-attr]
    images[3, 3, 3, 0] ^= 1
    assert fingerprint_of_dataset(replace(digits, test_images=images)) != before  # type: ignore[arg-type]


@pytest.mark.slow
def test_finished_only_when_whole(trained: RunConfig, tmp_path: Path) -> None:
    checkpoint = Path(str(trained.out_dir)) / "checkpoint.pt"
    assert [metrics.epoch for metrics in finished(checkpoint, 2)] == [0, 1]
    assert finished(checkpoint, 3) == []
    assert finished(tmp_path / "checkpoint.pt", 2) == []
    (tmp_path / "checkpoint.pt").write_bytes(checkpoint.read_bytes()[:1000])
    assert finished(tmp_path / "checkpoint.pt", 2) == []


@pytest.mark.slow
def test_a_given_checkpoint_is_evaluated_here(trained: RunConfig, digits: Dataset) -> None:
    checkpoint = f"{trained.out_dir}/checkpoint.pt"
    given = given_baseline(checkpoint, replace(trained, epochs=60), Classification(digits))
    assert given.metrics["top1"] == finished(Path(checkpoint), 2)[-1].metrics["top1"]
    assert given.checkpoint == checkpoint
    with pytest.raises(CheckpointError, match="its arch must be 'resnet20_cifar', got 'simplenet_cifar'"):
        given_baseline(checkpoint, replace(trained, arch="resnet20_cifar"), Classification(digits))


OWN_MODEL = """
import os
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, num_classes)

    def forward(self, images):
        if "RAY_RAYLET_PID" in os.environ:  # a process of Ray's, not the command
            os._exit(7)
        return self.fc(images.flatten(1))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_model_that_ends_the_baselines_process_is_told_so(
    write_sweep: Callable[..., Path], sweep_here: Callable[..., str], tmp_path: Path
) -> None:
    """Of a task that died Ray does not even say which process it was."""
    (tmp_path / "own_model.py").write_text(OWN_MODEL)
    write_sweep(
        ("model/arch", "own_model:Net"),
        ("schedule/pruners/agp/weights", ["fc.weight"]),
        ("search/per_layer/weights", ["*.weight"]),
        ("max_failures", 0),
    )
    told = " ".join(sweep_here("space.yaml", "--cpu", code=2).split())
    said = f"baseline: its process ended itself by os._exit(7) in {tmp_path}/own_model.py, line 12, in forward"
    assert said in told
    assert "memory" not in told[told.index(said) :]  # what Ray's own log guesses stands before it


@pytest.mark.slow
def test_plain_weights_are_adopted_with_the_pixels_that_are_said_of_them(trained: RunConfig, tmp_path: Path) -> None:
    plain = tmp_path / "model.pt"
    torch.save(read_checkpoint(f"{trained.out_dir}/checkpoint.pt")["model"], plain)
    told = replace(trained, out_dir=None, init_from=str(plain), mean=(0.1, 0.1, 0.1), std=(1.0, 1.0, 1.0))
    losses, paths = [], []
    for run in (told, replace(told, mean=None, std=None), replace(told, mean=(0.2, 0.2, 0.2))):
        task = task_of(run)
        path = adopted(str(plain), run, task, tmp_path / "baselines")
        assert read_checkpoint(path)["preprocessing"]["mean"] == (
            task.described()["mean"] if run.mean is None else list(run.mean)
        )
        losses.append(given_baseline(str(path), run, task).metrics["loss"])
        paths.append(path)
    assert len(set(losses)) == len(set(paths)) == 3
