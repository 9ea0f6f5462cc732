"""Training that prunes, thins and quantizes: any order, interrupted, begun with floats, on two workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.compression.quantizers import quantization_of
from raydistill.datasets import DatasetConfig, load
from raydistill.errors import ConfigError
from raydistill.records import EpochMetrics
from raydistill.schedule import ScheduleSpec, parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit, load_model, read_checkpoint
from tests.training.test_structure import FILTERS

QUANTIZERS: dict[str, dict[str, Any]] = {
    "ranges": {
        "class": "QuantAwareTrainRangeLinearQuantizer", "bits_weights": 8, "bits_activations": 8,
        "per_channel_wts": True,
    },
    "pact": {"class": "PACTQuantizer", "bits_weights": 4, "bits_activations": 4, "act_clip_decay": 0.001},
    "lsq": {"class": "LSQQuantizer", "bits_weights": 4, "bits_activations": 4, "per_channel_wts": True},
    "dorefa": {"class": "DorefaQuantizer", "bits_weights": 4, "bits_activations": 8},
}  # fmt: skip


def schedule(name: str, first: int = 0, prune: bool = True) -> ScheduleSpec:
    policy = {"quantizer": {"instance_name": "q"}, "starting_epoch": first, "ending_epoch": 9, "frequency": 1}
    said: dict[str, Any] = {"quantizers": {"q": QUANTIZERS[name]}, "policies": [policy]}
    if prune:
        said = {**FILTERS, **said, "policies": [*FILTERS["policies"], policy]}
    return parse_schedule(said, name)


@pytest.fixture(scope="module")
def task() -> Classification:
    return Classification(load(DatasetConfig("digits")))


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(
        "simplenet_cifar", DatasetConfig("digits"), epochs=4, batch_size=256, lr=0.02, effective_train_size=0.2,
        effective_valid_size=0.2, out_dir=str(tmp_path / "run"), deterministic=True, threads=1, tensorboard=False,
        device="cpu",
    )  # fmt: skip


def bits(folder: str | None) -> dict[str, torch.Tensor]:
    return dict(read_checkpoint(f"{folder}/checkpoint.pt")["model"])


def losses(done: list[EpochMetrics]) -> list[float]:
    return [epoch.metrics["loss"] for epoch in done]


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTIZERS)
def test_an_interrupted_run_has_the_bits_of_one_never_interrupted(
    config: RunConfig, task: Classification, tmp_path: Path, name: str
) -> None:
    config = replace(config, schedule=schedule(name, first=1))
    whole = list(fit(config, task=task))
    again = replace(config, out_dir=str(tmp_path / "again"))
    for stop in (1, 2, 3):  # before the thinning, after it, in the middle of quantized training
        running = fit(again, task=task)
        for epoch in running:
            if epoch.epoch + 1 == stop:
                break
        running.close()
    resumed = list(fit(again, task=task))
    assert losses(resumed) == losses(whole)[-len(resumed) :]
    one, other = bits(config.out_dir), bits(again.out_dir)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert any(key.startswith("quantization.") for key in one)
    assert one["conv2.weight"].shape[0] == 8  # thinned in mid-run


@pytest.mark.slow
def test_what_is_loaded_gives_what_was_validated(config: RunConfig, task: Classification) -> None:
    *_, last = fit(replace(config, schedule=schedule("ranges")), task=task)
    model = load_model(str(last.checkpoint)).eval()
    held = quantization_of(model)
    assert held is not None
    assert held.enabled
    images = task.example_input(64)[0]
    rounded = model(images)
    held.enabled = False
    assert not torch.equal(model(images), rounded)
    first = model.get_parameter("conv1.weight")
    assert len(first[0].unique()) > 20  # the float weights are kept


@pytest.mark.slow
def test_pruned_weights_stay_zero_in_the_quantized_network(config: RunConfig, task: Classification) -> None:
    levels = {"class": "SparsityLevelParameterPruner", "levels": {"fc1.weight": 0.7}}
    for name in QUANTIZERS:
        said = dict(schedule(name, prune=False).mapping)
        said["pruners"] = {"p": levels}
        said["policies"] = [{"pruner": {"instance_name": "p"}, "epochs": [0]}, *said["policies"]]
        run = replace(config, epochs=2, schedule=parse_schedule(said, name), out_dir=f"{config.out_dir}-{name}")
        *_, last = fit(run, task=task)
        model = load_model(str(last.checkpoint))
        held = quantization_of(model)
        assert held is not None
        weight = model.get_parameter("fc1.weight").detach()
        assert float((weight == 0).float().mean()) == pytest.approx(0.7, abs=1e-3)
        assert bool((held.weight("fc1.weight")(weight)[weight == 0] == 0).all())


@pytest.mark.slow
def test_it_begins_with_the_floats_of_another_run(config: RunConfig, task: Classification, tmp_path: Path) -> None:
    dense = replace(config, epochs=2, schedule=parse_schedule(FILTERS, "filters"))
    *_, last = fit(dense, task=task)
    for how in ("init_from", "continue_from"):
        start = {how: str(last.checkpoint), "out_dir": str(tmp_path / how)}
        *_, done = fit(replace(config, schedule=schedule("ranges", prune=False), **start), task=task)
        model = load_model(str(done.checkpoint))
        assert quantization_of(model) is not None
        assert model.get_parameter("conv2.weight").shape[0] == 8


@pytest.mark.slow
def test_a_quantized_network_is_not_quantized_again(config: RunConfig, task: Classification, tmp_path: Path) -> None:
    *_, last = fit(replace(config, epochs=1, schedule=schedule("dorefa", prune=False)), task=task)
    start = {"init_from": str(last.checkpoint), "out_dir": str(tmp_path / "on")}
    with pytest.raises(ConfigError, match="the network is quantized already"):
        list(fit(replace(config, schedule=schedule("ranges", prune=False), **start), task=task))
    *_, done = fit(replace(config, epochs=2, **start), task=task)  # without a quantizer it stays one
    assert quantization_of(load_model(str(done.checkpoint))) is not None
