"""The averaged weights: their arithmetic by hand, their masks, and that they are what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from raydistill.compression import build
from raydistill.compression.masks import MaskSet
from raydistill.compression.thinning import thin
from raydistill.datasets import DatasetConfig
from raydistill.errors import CheckpointError
from raydistill.parts import Optimizer
from raydistill.schedule import parse_schedule
from raydistill.tasks import TaskConfig
from raydistill.training import RunConfig, evaluate_checkpoint, fit, load_model, read_checkpoint
from raydistill.training.average import AveragedWeights
from tests.tasks.own import Line

NET, LINE = "tests.tasks.own:net", "tests.tasks.own:Line"


def test_the_mean_of_each_step_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    values = [4.0, 2.0, 8.0, 8.0]
    nn.init.constant_(model.weight, values[0])
    average = AveragedWeights(model, 0.15, MaskSet(model))
    expected = values[0]
    for step, value in enumerate(values[1:]):
        nn.init.constant_(model.weight, value)
        average.update()
        stays = min(0.15, (1 + step) / (10 + step))  # 0.1, then 0.15
        expected = stays * expected + (1 - stays) * value
    with average.in_place():
        assert float(model.weight.detach()) == pytest.approx(expected)
    assert float(model.weight.detach()) == values[-1]


def test_a_buffer_is_averaged_and_a_counter_is_not() -> None:
    model = nn.BatchNorm1d(1)
    average = AveragedWeights(model, 0.5, MaskSet(model))
    model(torch.tensor([[0.0], [20.0]]))  # running mean 1
    average.update()
    assert int(model.num_batches_tracked) == 1  # type: ignore[arg-type]
    with average.in_place():
        assert float(model.running_mean) == pytest.approx(0.9)  # type: ignore[arg-type]
        assert int(model.num_batches_tracked) == 1  # type: ignore[arg-type]


def test_a_mask_reaches_the_average_at_once() -> None:
    model = nn.Linear(3, 1, bias=False)
    masks = MaskSet(model)
    average = AveragedWeights(model, 0.9, masks)
    masks.set("weight", torch.tensor([[1.0, 0.0, 1.0]]))
    with average.in_place():
        assert (model.weight == 0).tolist() == [[False, True, False]]


def test_thinning_cuts_the_average_with_the_weights() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    images = (torch.zeros(1, 3, 8, 8),)
    scheduler = build(parse_schedule({"policies": []}, "s"), model, torch.optim.SGD(model.parameters(), lr=0.1), images)
    average = AveragedWeights(model, 0.9, scheduler.masks)
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight[1] = 0.0
        model[0].bias[1] = 0.0
    mask = torch.ones_like(before)
    mask[1] = 0.0
    scheduler.masks.set("0.weight", mask)
    thin(model, scheduler.masks, images)
    assert model[0].weight.shape == (3, 3, 3, 3)
    with average.in_place():
        assert torch.equal(model[0].weight.detach(), before[[0, 2, 3]])
    average.update()


@pytest.mark.slow
def test_what_is_validated_is_what_is_kept_and_delivered(tmp_path: Path) -> None:
    schedule = parse_schedule(
        {
            "pruners": {"agp": {"class": "AutomatedGradualPruner", "initial_sparsity": 0.0, "final_sparsity": 0.5,
                                "weights": ["0.weight"]}},
            "policies": [
                {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}
            ],
        },
        "s",
    )  # fmt: skip
    config = RunConfig(
        NET, task=TaskConfig(LINE), epochs=4, batch_size=16, lr=0.02, precision="fp32", device="cpu", threads=1,
        tensorboard=False, schedule=schedule, out_dir=str(tmp_path / "run"), optimizer=Optimizer(ema=0.95),
    )  # fmt: skip
    epochs = list(fit(config))
    checkpoint = tmp_path / "run/checkpoint.pt"
    found = evaluate_checkpoint(checkpoint, Line(), "validation", "cpu", arch=NET)
    assert dict(found.metrics) == dict(epochs[-1].metrics)
    model = load_model(checkpoint, NET)
    zeros = int((dict(model.named_parameters())["0.weight"] == 0).sum())
    assert zeros == 24
    assert epochs[-1].layer_sparsity["0.weight"] == pytest.approx(0.5)
    content = read_checkpoint(checkpoint)
    assert not torch.equal(content["trained"]["0.weight"], content["model"]["0.weight"])
    plain = list(fit(replace(config, optimizer=Optimizer(), out_dir=str(tmp_path / "plain"))))
    bare = read_checkpoint(tmp_path / "plain/checkpoint.pt")["model"]
    assert all(torch.equal(value, bare[name]) for name, value in content["trained"].items())  # training is not touched
    assert plain[-1].metrics != epochs[-1].metrics


@pytest.mark.slow
def test_tied_weights_go_on_as_they_were(tmp_path: Path) -> None:
    config = RunConfig(
        "tests.training.test_average:tied", DatasetConfig("digits"), epochs=3, batch_size=128, lr=0.02,
        precision="fp32", device="cpu", threads=1, deterministic=True, tensorboard=False, effective_train_size=0.2,
        out_dir=str(tmp_path / "whole"), optimizer=Optimizer(ema=0.9),
    )  # fmt: skip
    whole = [epoch.metrics for epoch in fit(config)]
    parts = replace(config, out_dir=str(tmp_path / "parts"))
    first = fit(parts)
    found = [next(first).metrics]
    first.close()
    assert found + [epoch.metrics for epoch in fit(parts)] == whole


def tied(num_classes: int) -> nn.Module:
    layer = nn.Linear(16, 16)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 16), layer, nn.ReLU(), layer, nn.Linear(16, num_classes)
    )


def test_another_network_s_average_is_refused() -> None:
    model = nn.Linear(2, 2)
    average = AveragedWeights(model, 0.9, MaskSet(model))
    with pytest.raises(CheckpointError, match=r"f.pt: has no averaged weights of this shape of 'weight'"):
        average.load({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, {"steps": 1}, "f.pt")
