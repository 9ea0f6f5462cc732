"""A sweep sees its images as the weights that it begins with want them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.datasets import DatasetConfig
from raydistill.sweep.file.load import Sweep, load_sweep
from raydistill.sweep.planning.plan import check_plan
from raydistill.sweep.planning.task import data_of, sweep_task
from raydistill.sweep.record.journal import read_journal
from raydistill.tasks import TaskConfig
from raydistill.tasks.classification import Classification
from raydistill.training import evaluate_checkpoint, read_checkpoint
from raydistill.training.checkpoint import write_checkpoint

WriteSweep = Callable[..., Path]
OTHER = {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.4, 0.5], "image_size": [32, 32]}


@pytest.fixture
def given(dense: Path, tmp_path: Path) -> Path:
    """The small sweep's dense network, as if it had been trained with other statistics."""
    content = read_checkpoint(next(dense.rglob("checkpoint.pt")))
    write_checkpoint(tmp_path / "given.pt", {**content, "preprocessing": OTHER})
    return tmp_path / "given.pt"


def started(sweep: Sweep) -> Classification:
    task = sweep_task(sweep)
    assert isinstance(task, Classification)
    return task


def test_without_given_weights_they_are_the_datasets_own(write_sweep: WriteSweep) -> None:
    task = started(load_sweep(write_sweep()))
    assert task.preprocessing == task.dataset.preprocessing
    assert (task.warning, task.note) == ("", "")


@pytest.mark.slow
def test_a_given_baseline_brings_its_own(write_sweep: WriteSweep, given: Path) -> None:
    task = started(load_sweep(write_sweep(("baseline", {"checkpoint": str(given)}))))
    seen = task.preprocessing
    assert (seen.mean, seen.std) == ((0.5, 0.4, 0.3), (0.3, 0.4, 0.5))
    assert seen != task.dataset.preprocessing
    assert "mean 0.500 0.400 0.300 (the dataset's own: " in task.note


@pytest.mark.slow
def test_published_weights_bring_theirs(write_sweep: WriteSweep) -> None:
    model = {"arch": "squeezenet1_1", "args": {"pretrained": True}}
    task = started(load_sweep(write_sweep(("model", model))))
    seen = task.preprocessing
    assert (seen.mean[0], seen.image_shape, seen.resize) == (0.485, (3, 224, 224), 256)
    assert task.note


@pytest.mark.slow
def test_nothing_is_said_of_sizes_that_published_weights_do_not_see(write_sweep: WriteSweep) -> None:
    """A transformer takes one size only, which is not that of the dataset."""
    layer = "encoder.layers.encoder_layer_0.mlp.0.weight"
    sweep = load_sweep(
        write_sweep(
            ("model", {"arch": "vit_b_16", "args": {"pretrained": True}}),
            ("schedule/pruners/agp/weights", [layer]),
            ("search/per_layer/weights", [layer]),
        )
    )
    check_plan(sweep)
    seen = started(sweep).preprocessing
    assert seen.image_shape == (3, 224, 224)


@pytest.mark.ray
@pytest.mark.slow
def test_trials_start_from_the_baselines(
    write_sweep: WriteSweep, sweep_here: Callable[..., str], given: Path, tmp_path: Path, spared: None
) -> None:
    decay = [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 1, "frequency": 1}]
    file = write_sweep(
        ("baseline", {"checkpoint": str(given)}), ("training/epochs", 1), ("schedule/policies", decay),
        ("num_samples", 1),
    )  # fmt: skip
    said = sweep_here(file)
    assert "images are prepared as the weights want them: mean 0.500 0.400 0.300" in " ".join(said.split())
    records = read_journal(tmp_path / "sweeps/tiny/journal.jsonl").records
    kept = tmp_path / "sweeps/tiny/trials/t0000/checkpoint.pt"
    content = read_checkpoint(kept)
    assert {key: content["preprocessing"][key] for key in OTHER} == OTHER
    task = started(load_sweep(file))
    for name, path in (("baseline", given), ("t0000", kept)):
        last = records[name].last
        assert last is not None
        assert last.metrics["top1"] == pytest.approx(
            evaluate_checkpoint(path, task, "validation", "cpu").metrics["top1"]
        )


@pytest.mark.parametrize(
    ("task", "data", "said"),
    [
        ("classification", DatasetConfig(), "cifar10"),
        ("classification", DatasetConfig("digits", data_dir="/data/there"), "digits"),
        ("detection", DatasetConfig(data_dir="/data/coco"), "coco (detection)"),
        ("regression", DatasetConfig("diabetes"), "diabetes (regression)"),
        ("mine:Points", DatasetConfig(), "mine:Points"),
    ],
)
def test_what_is_loaded_is_said_by_its_own_name(task: str, data: DatasetConfig, said: str) -> None:
    assert data_of(TaskConfig(task), data) == said
