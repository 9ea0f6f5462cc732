"""What a run begins with, and that its data are prepared as these weights want them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from raydistill.datasets import DatasetConfig, load
from raydistill.errors import CheckpointError, ConfigError
from raydistill.tasks import TaskConfig
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit, read_checkpoint
from raydistill.training.checkpoint import write_checkpoint
from raydistill.training.start import (
    prepared_for,
    published_checkpoint,
    removed_layers,
    task_of,
    weights_of,
)

DIGITS = DatasetConfig("digits")
OTHER = {"mean": [0.1, 0.2, 0.3], "std": [0.9, 0.8, 0.7]}
SAID: dict[str, Any] = {"mean": (0.1, 0.2, 0.3), "std": (0.9, 0.8, 0.7)}
ARCH = "simplenet_cifar"


@pytest.fixture(scope="module")
def task() -> Classification:
    return Classification(load(DIGITS))


@pytest.fixture(scope="module")
def own(task: Classification, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a run of one epoch."""
    out = tmp_path_factory.mktemp("own")
    config = RunConfig(
        ARCH, DIGITS, epochs=1, effective_train_size=0.05, effective_valid_size=0.05, out_dir=str(out), threads=1,
        tensorboard=False, device="cpu", precision="fp32",
    )  # fmt: skip
    list(fit(config, task=task))
    return out / "checkpoint.pt"


@pytest.fixture
def plain(own: Path, tmp_path: Path) -> Path:
    """The weights of a checkpoint, and nothing else."""
    path = tmp_path / "model.pt"
    torch.save(read_checkpoint(own)["model"], path)
    return path


@pytest.mark.slow
def test_a_run_of_its_own_goes_before_what_it_goes_on_from_and_that_before_what_it_starts_from(
    own: Path, tmp_path: Path
) -> None:
    content = read_checkpoint(own)
    for epoch, name in enumerate(("run/checkpoint.pt", "on.pt", "from.pt")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_checkpoint(tmp_path / name, {**content, "epoch": 10 + epoch})
    config = RunConfig(
        ARCH, DIGITS, out_dir=str(tmp_path / "run"), continue_from=str(tmp_path / "on.pt"),
        init_from=str(tmp_path / "from.pt"),
    )  # fmt: skip

    def found(config: RunConfig) -> tuple[int | None, str]:
        weights = weights_of(config)
        return None if weights.content is None else weights.content["epoch"], weights.where

    assert found(config) == (10, str(tmp_path / "run/checkpoint.pt"))
    assert found(replace(config, resume=False)) == (11, str(tmp_path / "on.pt"))
    assert found(replace(config, out_dir=str(tmp_path / "fresh"))) == (11, str(tmp_path / "on.pt"))
    assert found(replace(config, out_dir=None, continue_from=None)) == (12, str(tmp_path / "from.pt"))
    assert found(RunConfig(ARCH, DIGITS)) == (None, "model.args.pretrained")
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        weights_of(replace(config, out_dir=None, continue_from=str(tmp_path / "gone.pt")))


@pytest.mark.slow
def test_the_data_are_prepared_as_the_weights_say(own: Path, task: Classification, tmp_path: Path) -> None:
    content = read_checkpoint(own)
    write_checkpoint(tmp_path / "c.pt", {**content, **OTHER, "preprocessing": {**content["preprocessing"], **OTHER}})
    config = RunConfig(ARCH, DIGITS, init_from=str(tmp_path / "c.pt"))
    for found in (task_of(config), prepared_for(config, task), prepared_for(config, None)):
        assert {key: found.described()[key] for key in OTHER} == OTHER
    assert {key: task.described()[key] for key in OTHER} != OTHER
    assert task_of(RunConfig(ARCH, DIGITS)).described()["mean"] == list(task.dataset.mean)


@pytest.mark.slow
def test_what_is_said_of_plain_weights_is_as_if_they_said_it(plain: Path, task: Classification) -> None:
    config = RunConfig(ARCH, DIGITS, init_from=str(plain), **SAID)
    for found in (task_of(config), prepared_for(config, task)):
        assert {key: found.described()[key] for key in OTHER} == OTHER


@pytest.mark.slow
def test_what_cannot_be_said_of_weights_is_one_line(plain: Path, own: Path, task: Classification) -> None:
    run = RunConfig(ARCH, DIGITS, init_from=str(plain), device="cpu", **SAID)
    for wrong, rule in (
        (replace(run, init_from=str(own)), r"^mean, std: are for plain weights; .*checkpoint.pt says its own, .*leave"),
        (replace(run, mean=(0.5,), std=(0.5,)), r"^mean, std: must have 3 numbers each, .*; see --channels$"),
        (replace(run, std=None), r"^std: is missing beside mean; give both$"),
    ):
        for prepare in (task_of, lambda config: prepared_for(config, task)):
            with pytest.raises(ConfigError, match=rule) as caught:
                prepare(wrong)
            assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(
        ConfigError, match=r"^mean: is for weights that a run starts from, and there are none; leave it"
    ):
        next(fit(replace(run, init_from=None)))
    other = RunConfig("mlp", DatasetConfig("diabetes"), task=TaskConfig("regression"), device="cpu", **SAID)
    with pytest.raises(ConfigError, match=r"^mean: is for images that are classified, not for diabetes, got"):
        task_of(other)


def test_arguments_that_weights_mean_nothing_without() -> None:
    said = {"run": {"model_args": {"removed": ["layer1.0.conv1"], "width": 3}}}
    assert removed_layers(said) == {"removed": ["layer1.0.conv1"]}
    for nothing in (None, {}, {"run": {}}, {"run": {"model_args": None}}, {"run": {"model_args": {"width": 3}}}):
        assert removed_layers(nothing) == {}


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A network of torchvision's in torch's folder of downloads, under the name of published weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(99)
    state = torchvision.models.get_model("squeezenet1_1").state_dict()
    url = torchvision.models.get_model_weights("squeezenet1_1")["IMAGENET1K_V1"].url
    torch.save(state, folder / url.rsplit("/", 1)[1])
    return state


@pytest.mark.slow
def test_published_weights_are_a_checkpoint_of_no_epochs(published: dict[str, torch.Tensor], tmp_path: Path) -> None:
    before = torch.get_rng_state()
    content = published_checkpoint("squeezenet1_1", None)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, published[name]) for name, value in content["model"].items())
    assert (content["epoch"], content["num_classes"], content["image_shape"]) == (-1, 1000, [3, 224, 224])
    assert content["mean"] == [0.485, 0.456, 0.406]
    write_checkpoint(tmp_path / "c.pt", content)
    assert read_checkpoint(tmp_path / "c.pt")["run"] == {"arch": "squeezenet1_1", "model_args": {"pretrained": True}}


@pytest.mark.slow
def test_with_another_number_of_classes_the_last_layer_is_the_same_random_one(
    published: dict[str, torch.Tensor],
) -> None:
    one, other = (published_checkpoint("squeezenet1_1", 7)["model"] for _ in range(2))
    last = "classifier.1.weight"
    assert one[last].shape[0] == 7
    assert torch.equal(one[last], other[last])
    assert torch.equal(one["features.0.weight"], published["features.0.weight"])


def test_an_architecture_without_published_weights_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^--pretrained.*: there are no published weights of 'simplenet_cifar'"):
        published_checkpoint(ARCH, None)
