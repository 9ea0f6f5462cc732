"""Detectors on generated shapes: learned, pruned, gone on with; torchvision's own run under a schedule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raydistill import tasks
from raydistill.datasets import DatasetConfig
from raydistill.errors import ConfigError, DataError
from raydistill.schedule import parse_schedule, scale_epochs
from raydistill.tasks import Loading, TaskConfig, Weights
from raydistill.tasks.detection import Detection
from raydistill.training import RunConfig, evaluate_checkpoint, fit, load_model, read_checkpoint
from raydistill.training.precision import _shortest_steps
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
        NET, DatasetConfig(data_dir=str(root)), task=TaskConfig("detection"), epochs=2, batch_size=8, lr=0.02,
        threads=1, out_dir=str(tmp_path / "run"), deterministic=True, tensorboard=False, device="cpu",
    )  # fmt: skip


@pytest.mark.slow  # trains twice
def test_it_is_pruned_and_goes_on_where_it_was(config: RunConfig, tmp_path: Path) -> None:
    data = replace(config.dataset, validation=0.8)
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
    data = replace(config.dataset, validation=0.2)
    epochs = list(fit(replace(config, epochs=35, lr=0.05, batch_size=4, dataset=data)))
    assert epochs[-1].metrics["map_50"] > 0.8 > 0.6 > epochs[0].metrics["map_50"]
    assert epochs[-1].metrics["loss"] < epochs[0].metrics["loss"] / 4
    task = Detection(str(tmp_path / "shapes"))
    test = evaluate_checkpoint(tmp_path / "run/checkpoint.pt", task, "test", "cpu", arch=NET)
    assert (test.metrics["map_50"] > 0.8, test.samples) == (True, 8)


@pytest.mark.slow  # a large network
@pytest.mark.long  # the tests above prune and train a smaller one
def test_torchvisions_mask_rcnn_runs_under_a_schedule_as_distillers_users_have_them(
    config: RunConfig, tmp_path: Path
) -> None:
    """Of the kind of their word_lang_model files: levels of their own for parts of the network, linear layers every
    third epoch, names behind ``module.``; blocks of 4 x 1 filters in a part. From 45 epochs shortened to 3."""
    body = "module.backbone.body.layer"
    mapping = {
        "version": 1,
        "pruners": {
            "fc": _agp(0.85, ["module.roi_heads.box_head.fc*.weight"]),
            "first": _agp(0.75, [f"{body}1.*.conv*.weight"]),
            "middle": _agp(0.85, [f"{body}[23].*.conv*.weight", "module.backbone.fpn.*.weight"]),
            "last": _agp(0.90, [f"{body}4.*.conv*.weight"]),
            "masks": {
                "class": "L1RankedStructureParameterPruner_AGP", "initial_sparsity": 0.05, "final_sparsity": 0.6,
                "group_type": "Blocks", "kwargs": {"block_shape": [4, 1, 1, 1]},
                "weights": ["module.roi_heads.mask_head.*.weight"],
            },
        },
        "policies": [
            {"pruner": {"instance_name": name}, "starting_epoch": 0, "ending_epoch": 45,
             "frequency": 3 if name == "fc" else 1}
            for name in ("fc", "first", "middle", "last", "masks")
        ],
    }  # fmt: skip
    root = write(tmp_path / "few", {"train": 2, "val": 1})
    run = replace(
        config, arch=DETECTOR, model_args={"name": "maskrcnn_resnet50_fpn", "min_size": 64, "max_size": 64},
        dataset=DatasetConfig(data_dir=str(root)), task=TaskConfig("detection", {"masks": True}), epochs=3,
        batch_size=2, lr=0.0005, schedule=parse_schedule(scale_epochs(mapping, 45, 3), "maskrcnn"),
    )  # fmt: skip
    epochs = list(fit(run))
    sparsities = [epoch.sparsity for epoch in epochs]
    assert sparsities == sorted(sparsities)
    assert sparsities[0] < 0.1 < 0.75 < sparsities[-1]
    model = load_model(tmp_path / "run/checkpoint.pt", DETECTOR)
    weights = dict(model.named_parameters())
    for name, level in (
        ("backbone.body.layer1.0.conv2.weight", 0.75), ("backbone.body.layer3.0.conv2.weight", 0.85),
        ("backbone.fpn.inner_blocks.2.0.weight", 0.85), ("backbone.body.layer4.1.conv1.weight", 0.90),
        ("roi_heads.box_head.fc6.weight", 0.85), ("roi_heads.mask_head.2.0.weight", 0.60),
    ):  # fmt: skip
        assert float((weights[name] == 0).float().mean()) == pytest.approx(level, abs=0.002)
    blocks = weights["roi_heads.mask_head.2.0.weight"].detach().reshape(64, 4, -1) == 0
    assert torch.equal(blocks.all(1), blocks.any(1))
    said = model([torch.rand(3, 48, 48)])[0]
    assert said["masks"].shape[2:] == (48, 48)


def _agp(level: float, weights: list[str]) -> dict[str, object]:
    return {"class": "AutomatedGradualPruner", "initial_sparsity": 0.01, "final_sparsity": level, "weights": weights}


@pytest.mark.slow
def test_evaluation_is_the_same_again_and_changes_nothing(config: RunConfig) -> None:
    task = tasks.load(config.task, config.dataset, Weights(NET))
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


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu"])
def test_the_faster_precision_is_measured_on_a_batch_with_its_targets(config: RunConfig, device: str) -> None:
    """In train mode a detector cannot be called with images alone."""
    task = tasks.load(config.task, config.dataset, Weights(NET))
    torch.manual_seed(0)
    network, where = small(3), torch.device(device)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, targets = task.example_batch(2, where)
    assert [len(images), len(targets), sorted(targets[0])] == [2, 2, ["boxes", "labels"]]
    step = _shortest_steps(("fp32",), network, where, (), lambda net: task.loss(net, (images, targets)))
    assert 0 < step["fp32"] < 60
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with pytest.raises(AssertionError, match="targets"):
        _shortest_steps(("fp32",), network, where, task.example_input())


def test_wrong_things_are_one_line(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    alone = write(tmp_path / "alone", {"train": 4})
    right = str(config.dataset.data_dir)
    for data, args, rule in (
        (str(tmp_path / "no"), {}, "dataset.data_dir: must be a folder in COCO's layout, got .*no'; mend it or give"),
        (str(tmp_path / "empty"), {}, "must hold instances_train"),
        (str(alone), {}, r"and instances_val\*.json .*got \['train'\]"),
        (None, {}, "dataset.data_dir: must be given: a folder in COCO's layout; give --data-dir"),
        (right, {"mask": True}, "task.args: 'detection' does not take them"),
        (right, {"masks": 1}, "task.args.masks: must be true or false, got 1"),
    ):
        with pytest.raises((ConfigError, DataError), match=rule) as caught:
            tasks.load(TaskConfig("detection", args), DatasetConfig(data_dir=data), Weights(NET))
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"channels: is for images with labels, not for detection, got 'grey'"):
        tasks.load(config.task, replace(config.dataset, channels="grey"), Weights(NET))
    task = tasks.load(config.task, config.dataset, Weights(NET))
    with pytest.raises(ConfigError, match=r"model.arch: must be a detector, .*, got 'simplenet_cifar'; use raydistill"):
        task.network("simplenet_cifar", {})
