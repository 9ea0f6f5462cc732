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
from raydistill.records import BASELINE, FINISHED
from raydistill.schedule import dump_schedule, parse_schedule
from raydistill.sweep.baseline import (
    adopted,
    baseline_hash,
    baseline_record,
    ensure_baseline,
    finished,
    given_baseline,
)
from raydistill.sweep.planning.runs import baseline_config
from raydistill.tasks.classification import Classification
from raydistill.tasks.classification.fingerprint import fingerprint_of_dataset
from raydistill.training import RunConfig, fit, read_checkpoint
from raydistill.training.checkpoint import write_checkpoint
from raydistill.training.start import task_of
from tests.sweep import sessions

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


def kept(path: Path, task: Classification, epochs: int) -> Path:
    """A dense network that was trained so long."""
    torch.manual_seed(0)
    history = [sessions.epoch(number, 0.5 + number / 10, 0.0).to_json() for number in range(epochs)]
    run = {"arch": "simplenet_cifar", "model_args": {}}
    model = task.network("simplenet_cifar", {}).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {**task.described(), "run": run, "precision": "fp32", "dataset": "digits"}
    write_checkpoint(path, {**about, "model": model, "history": history})
    return path


def test_what_is_trained_to_its_end_and_what_is_not(digits: Dataset, tmp_path: Path) -> None:
    path = kept(tmp_path / "checkpoint.pt", Classification(digits), 2)
    assert [metrics.epoch for metrics in finished(path, 2)] == [0, 1]
    assert len(finished(path, 1)) == 2
    assert finished(path, 3) == []
    assert finished(tmp_path / "other.pt", 2) == []
    path.write_bytes(path.read_bytes()[:1000])
    assert finished(path, 2) == []
    assert finished(kept(path, Classification(digits), 0), 0) == []


def test_the_record_of_the_dense_network() -> None:
    schedule = parse_schedule(DECAY, "s")
    last = sessions.epoch(3, 0.9, 0.0, "/dense.pt")
    for said, text in ((schedule, dump_schedule(schedule)), (None, "")):
        record = baseline_record(RunConfig("simplenet_cifar", seed=7, schedule=said), "digits", last, "because")
        assert (record.trial_id, record.state, record.reason, record.arch) == (
            BASELINE, FINISHED, "because", "simplenet_cifar",
        )  # fmt: skip
        assert (record.dataset, record.seed, record.epochs, record.last) == ("digits", 7, 4, last)
        assert (record.checkpoint, record.started_ms, record.schedule_text) == ("/dense.pt", last.timestamp_ms, text)
        assert record.ended_ms is not None
        assert record.ended_ms > 1_700_000_000_000  # milliseconds


@pytest.mark.slow
def test_a_baseline_that_another_sweep_trained_is_taken_and_a_lost_one_is_not_missed_for_long(
    write_sweep: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    task = Classification(digits)
    session = sessions.session_of(write_sweep, tmp_path)
    session.task = task
    run = baseline_config(session.sweep)
    path = kept(tmp_path / "baselines" / baseline_hash(run, "f") / "checkpoint.pt", task, run.epochs)
    sessions.is_in(sessions.finished(BASELINE, 0.9, 0.0, str(tmp_path / "gone.pt")), session)
    assert ensure_baseline(session)
    observer = session.observer
    assert isinstance(observer, sessions.Heard)
    assert observer.steps == []
    assert observer.warnings == [f"the dense baseline is trained again: {tmp_path / 'gone.pt'} is not there any more"]
    record = session.ledger.records[BASELINE]
    assert (record.reason, record.checkpoint) == ("trained 3 epochs by an earlier sweep", str(path))
    assert record.last is not None
    assert (record.last.epoch, record.last.checkpoint) == (2, str(path))
    assert record.last.footprint["macs"] == 3 * 6 * 25 * 28 * 28 + 6 * 16 * 25 * 100 + 400 * 120 + 120 * 84 + 840
    assert ensure_baseline(session)  # it is there now
    assert session.ledger.records[BASELINE] is record
    (tmp_path / "damaged.pt").write_bytes(path.read_bytes()[:1000])
    sessions.is_in(sessions.finished(BASELINE, 0.9, 0.0, str(tmp_path / "damaged.pt")), session)
    assert ensure_baseline(session)
    assert observer.warnings[1].startswith(f"the dense baseline is trained again: {tmp_path / 'damaged.pt'}")
    assert "damaged" in observer.warnings[1]


@pytest.mark.slow
def test_a_given_network_is_evaluated_once_and_is_never_said_to_be_trained_again(
    write_sweep: Callable[..., Path], digits: Dataset, tmp_path: Path
) -> None:
    task = Classification(digits)
    path = kept(tmp_path / "mine.pt", task, 1)
    session = sessions.session_of(write_sweep, tmp_path, ("baseline", {"checkpoint": str(path)}))
    session.task = task
    sessions.is_in(sessions.finished(BASELINE, 0.9, 0.0, str(tmp_path / "gone.pt")), session)
    assert ensure_baseline(session)
    observer = session.observer
    assert isinstance(observer, sessions.Heard)
    assert (observer.steps, observer.warnings) == (["evaluating the dense baseline"], [])
    record = session.ledger.records[BASELINE]
    assert (record.reason, record.checkpoint) == ("taken from baseline.checkpoint", str(path))
    assert record.last is not None
    assert record.last.metrics["top1"] != 0.5  # it was 0.5 when it was trained, on other images
    assert record.last.footprint["parameters"] > 60_000
    assert ensure_baseline(session)
    assert len(observer.steps) == 1
