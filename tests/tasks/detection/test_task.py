"""Detectors on generated shapes: learned, pruned, gone on with; torchvision's own run under a schedule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raydistill import tasks
from raydistill.datasets import DatasetConfig
from raydistill.errors import ConfigError, DataError
from raydistill.schedule import parse_schedule
from raydistill.tasks import Loading, TaskConfig, Weights
from raydistill.tasks.detection import Detection
from raydistill.training import RunConfig, evaluate_checkpoint, fit, read_checkpoint
from tests.tasks.detection.shapes import small, write

NET = "tests.tasks.detection.shapes:small"
DETECTOR = "raydistill.models.detector:detector"


def agp(weights: list[str], epochs: int) -> object:
    return parse_schedule({
        "version": 1,
        "pruners": {"agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.0, "final_sparsity": 0.5, "weights": weights,
        }},
        "policies": [
            {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": epochs, "frequency": 1}
        ],
    }, "agp")  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    root = write(tmp_path / "shapes", {"train": 40, "val": 8})
    return RunConfig(
        NET, task=TaskConfig("detection", {"folder": str(root)}), epochs=2, batch_size=8, lr=0.02, threads=1,
        out_dir=str(tmp_path / "run"), deterministic=True, tensorboard=False, device="cpu",
    )  # fmt: skip


@pytest.mark.slow  # trains twice
def test_it_is_pruned_and_goes_on_where_it_was(config: RunConfig, tmp_path: Path) -> None:
    data = DatasetConfig(validation=0.8)
    pruned = replace(config, dataset=data, schedule=agp(["backbone.3.weight"], 2))  # type: ignore[arg-type]
    whole = list(fit(pruned))
    assert list(whole[0].metrics) == ["map", "map_50", "loss"]
    assert whole[-1].layer_sparsity["backbone.3.weight"] == pytest.approx(0.5, abs=0.01)
    parts = replace(pruned, out_dir=str(tmp_path / "parts"))
    run = fit(parts)
    first = next(run)
    run.close()
    assert [e.metrics for e in [first, *fit(parts)]] == [e.metrics for e in whole]
    assert read_checkpoint(tmp_path / "run/checkpoint.pt")["num_classes"] == 3


@pytest.mark.slow  # learns for some seconds
def test_it_is_learned(config: RunConfig, tmp_path: Path) -> None:
    epochs = list(fit(replace(config, epochs=35, lr=0.05, batch_size=4, dataset=DatasetConfig(validation=0.2))))
    assert epochs[-1].metrics["map_50"] > 0.8 > 0.6 > epochs[0].metrics["map_50"]
    assert epochs[-1].metrics["loss"] < epochs[0].metrics["loss"] / 4
    task = Detection(str(tmp_path / "shapes"))
    test = evaluate_checkpoint(tmp_path / "run/checkpoint.pt", task, "test", "cpu", arch=NET)
    assert (test.metrics["map_50"] > 0.8, test.samples) == (True, 8)


@pytest.mark.slow  # a large network
def test_torchvisions_mask_rcnn_runs_under_a_schedule(config: RunConfig, tmp_path: Path) -> None:
    root = write(tmp_path / "few", {"train": 4, "val": 2})
    run = replace(
        config, arch=DETECTOR, model_args={"name": "maskrcnn_resnet50_fpn", "min_size": 64, "max_size": 64},
        task=TaskConfig("detection", {"folder": str(root), "masks": True}), epochs=1, batch_size=2, lr=0.0005,
        schedule=agp(["backbone.body.layer*.conv*.weight", "roi_heads.mask_head.*.weight"], 1),
    )  # fmt: skip
    (last,) = fit(run)
    assert last.layer_sparsity["backbone.body.layer3.0.conv2.weight"] == pytest.approx(0.5, abs=0.01)


def test_evaluation_is_the_same_again_and_changes_nothing(config: RunConfig) -> None:
    task = tasks.load(config.task, DatasetConfig(), Weights(NET))
    torch.manual_seed(0)
    network = small(3).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loading = Loading(torch.device("cpu"), 8)
    state = torch.get_rng_state()
    figures = [task.evaluate(network, task.feed("test", loading), loading) for _ in range(2)]
    assert figures[0] == figures[1]
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_wrong_things_are_one_line(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    alone = write(tmp_path / "alone", {"train": 4})
    for args, rule in (
        ({"folder": str(tmp_path / "no")}, "the data folder does not exist"),
        ({"folder": str(tmp_path / "empty")}, "must hold instances_train"),
        ({"folder": str(alone)}, r"and instances_val\*.json .*got \['train'\]"),
        ({}, "task.args: 'detection' does not take them"),
        ({"folder": str(alone), "mask": True}, "task.args: 'detection' does not take them"),
    ):
        with pytest.raises((ConfigError, DataError), match=rule) as caught:
            tasks.load(TaskConfig("detection", args), DatasetConfig(), Weights(NET))
        assert "\n" not in str(caught.value)
