"""Preprocessing belongs to the weights: to the image, whatever lies beside the images that a network is tried on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from raydistill import datasets, models
from raydistill.datasets import DatasetConfig, Preprocessing
from raydistill.errors import CheckpointError, ConfigError
from raydistill.tasks import Loading
from raydistill.tasks.classification import Classification
from raydistill.tasks.classification.feed import EvalFeed, TrainFeed
from raydistill.tasks.classification.preprocessing import (
    Translated,
    of_checkpoint,
    of_distiller,
    of_published,
    of_weights,
)
from raydistill.training import Distillation, RunConfig, evaluate_checkpoint, fit, load_model, read_checkpoint
from raydistill.training.checkpoint import model_of, write_checkpoint
from raydistill.training.distiller_checkpoint import read_any
from raydistill.training.start import removed_layers, task_of, weights_of
from raydistill.training.teacher import load_teacher

DISTILLERS = ("resnet20_cifar10_checkpoint", "ssl_4D_5Lremoved_finetuned", "ssl_channels_finetuned")
LEAST = {"resnet20_cifar10_checkpoint": 0.05, "ssl_4D_5Lremoved_finetuned": 0.75, "ssl_channels_finetuned": 0.75}
"""top1; the dense one is of a run that had come to nothing: its own best is 9.92 %."""


class OneChannel(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(images)).mean((2, 3)))


def beside(tree: Path, folder: Path, change: Callable[[Image.Image], Image.Image]) -> Path:
    """The same test images beside other train images."""
    shutil.copytree(tree, folder)
    for path in folder.glob("train/*/*"):
        with Image.open(path) as image:
            changed = change(image.convert("RGB"))
        changed.save(path)
    return folder


@pytest.fixture(scope="module")
def trees(cifar: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("trees")
    return (
        cifar,
        beside(cifar, folder / "dark", lambda image: image.point(lambda value: value // 8)),
        beside(cifar, folder / "large", lambda image: image.resize((48, 40))),
    )


def right(tree: Path, checkpoint: Path, cache: Path, arch: str) -> int:
    """How many of the test images a checkpoint gets right, as the commands count them."""
    config = RunConfig(arch, DatasetConfig("imagefolder", str(tree)), continue_from=str(checkpoint))
    images = datasets.load(config.dataset, cache_dir=cache, wanted=of_weights(weights_of(config)))
    found = evaluate_checkpoint(checkpoint, Classification(images), "test", "cpu")
    return round(found.metrics["top1"] * found.samples)


def by_hand(tree: Path, model: nn.Module, mean: Any, std: Any) -> int:
    """The same without any of the package's own decoding, batches or normalisation."""
    count = 0
    classes = sorted(path.name for path in (tree / "test").iterdir())
    for label, name in enumerate(classes):
        pixels = np.stack([np.asarray(Image.open(path)) for path in sorted((tree / "test" / name).iterdir())])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
        images = (images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
        with torch.no_grad():
            count += int((model(images).argmax(1) == label).sum())
    return count


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTILLERS)
def test_distillers_checkpoints_to_the_image(compat: Path, trees: tuple[Path, ...], tmp_path: Path, name: str) -> None:
    file = compat / "checkpoints" / f"{name}.pth.tar"
    expected = by_hand(trees[0], model_of(read_any(file), name), [0.5] * 3, [0.5] * 3)
    assert [right(tree, file, tmp_path, "resnet20_cifar") for tree in trees] == [expected] * 3
    assert expected >= LEAST[name] * 300


def run_on(tree: Path, out: Path, **changes: Any) -> RunConfig:
    return RunConfig(
        "simplenet_cifar", DatasetConfig("imagefolder", str(tree), validation=0.25), epochs=2, batch_size=8, lr=0.01,
        out_dir=str(out), threads=1, tensorboard=False, device="cpu", precision="fp32", **changes,
    )  # fmt: skip


def train(config: RunConfig) -> dict[str, Any]:
    list(fit(config))
    return read_checkpoint(Path(str(config.out_dir)) / "checkpoint.pt")


@pytest.fixture(scope="module")
def own(trees: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own")
    train(run_on(trees[0], out))
    return out / "checkpoint.pt"


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
def test_an_own_checkpoint_to_the_image(own: Path, trees: tuple[Path, ...], tmp_path: Path, old: bool) -> None:
    content = read_checkpoint(own)
    if old:  # as they were before preprocessing was a value of its own
        del content["preprocessing"]
    write_checkpoint(tmp_path / "c.pt", content)
    expected = by_hand(trees[0], load_model(own), content["mean"], content["std"])
    assert [right(tree, tmp_path / "c.pt", tmp_path, "simplenet_cifar") for tree in trees] == [expected] * 3


@pytest.mark.slow
def test_from_the_beginning_the_datas_own_statistics_count(own: Path, trees: tuple[Path, ...]) -> None:
    content = read_checkpoint(own)
    images = datasets.load(DatasetConfig("imagefolder", str(trees[0]), validation=0.25))
    assert (content["mean"], content["std"]) == (list(images.mean), list(images.std))
    assert of_checkpoint(content, "c") == images.preprocessing
    assert "preprocessing" not in content["run"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["init_from", "continue_from"])
def test_fine_tuning_keeps_what_the_weights_want(own: Path, trees: tuple[Path, ...], tmp_path: Path, how: str) -> None:
    start = of_checkpoint(read_checkpoint(own), "c")
    config = replace(run_on(trees[1], tmp_path / "run", **{how: str(own)}), epochs=3)
    stopped = fit(config)
    next(stopped)
    stopped.close()
    content = train(replace(config, epochs=4))  # goes on
    assert of_checkpoint(content, "c") == start
    assert content["run"]["preprocessing"] == content["preprocessing"]
    assert len(content["history"]) == (4 if how == "init_from" else 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", [0.5, 0.5]), ("mean", ["a", 0.5, 0.5]), ("std", [0.5, 0.0, 0.5]), ("std", float("nan")),
        ("image_size", [32]), ("image_size", [32, -1]), ("channels", "cmyk"), ("resize", 1e9), ("interpolation", []),
    ],
)  # fmt: skip
def test_damage_is_one_line(own: Path, tmp_path: Path, key: str, value: Any) -> None:
    content = read_checkpoint(own)
    content["preprocessing"][key] = value
    with pytest.raises(CheckpointError, match=r"^c.pt: is damaged: its preprocessing cannot be read"):
        of_checkpoint(content, "c.pt")


def test_plain_values_and_back() -> None:
    for seen in (
        Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (32, 48)),
        Preprocessing((0.1,), (0.4,), (224, 224), 256, "bicubic", "grey"),
    ):
        assert Preprocessing.from_plain(seen.to_plain(), "x") == seen


@pytest.mark.parametrize(
    ("arch", "mean", "size", "resize"),
    [
        ("resnet20_cifar", 0.5, 32, None), ("vgg16_cifar", 0.5, 32, None), ("resnet50", 0.485, 224, 256),
        ("alexnet_bn", 0.485, 224, 256), ("mobilenet_050", 0.485, 224, 256), ("inception_v3", 0.485, 299, 336),
    ],
)  # fmt: skip
def test_distillers_by_architecture(arch: str, mean: float, size: int, resize: int | None) -> None:
    seen = of_distiller(arch)
    assert seen is not None
    assert (seen.mean[0], seen.image_size, seen.resize) == (mean, (size, size), resize)


def test_distillers_of_a_name_that_is_not_on_the_menu_is_what_the_user_says() -> None:
    content = {"parameters": [], "run": {"arch": "resnet20_of_ours", "model_args": {}}}
    assert of_checkpoint(content, "c") is None
    assert of_checkpoint(content, "c", "resnet20_cifar") == of_distiller("resnet20_cifar")
    content["run"] = {"arch": None, "model_args": {}}
    assert of_checkpoint(content, "c", "resnet18") == of_distiller("resnet18")


def test_distillers_of_something_else() -> None:
    assert of_distiller("word_lang_model") is None
    assert of_distiller("my.own:net") is None


@pytest.mark.parametrize(
    ("arch", "weights", "crop", "resize", "interpolation"),
    [
        ("resnet18", True, 224, 256, "bilinear"), ("resnet50", "IMAGENET1K_V2", 224, 232, "bilinear"),
        ("inception_v3", True, 299, 342, "bilinear"), ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", 384, 384, "bicubic"),
    ],
)  # fmt: skip
def test_published_weights_say_theirs(arch: str, weights: Any, crop: int, resize: int, interpolation: str) -> None:
    seen = of_published(arch, weights, "here")
    assert (seen.image_size, seen.resize, seen.interpolation) == ((crop, crop), resize, interpolation)
    assert seen.mean == (0.485, 0.456, 0.406)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Photographs of all sizes and shapes, some of them grey: noise that is smooth enough to be resized."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for name in ("ant", "bee"):
            (tmp_path / "mixed" / split / name).mkdir(parents=True)
            for number in range(count):
                small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
                image = small.resize((int(rng.integers(30, 400)), int(rng.integers(30, 400))), Image.Resampling.BICUBIC)
                image = image.convert("L") if number == 1 else image
                image.save(tmp_path / "mixed" / split / name / f"{number}.png")
    return tmp_path / "mixed"


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "IMAGENET1K_V2"])
def test_images_of_any_size_are_evaluated_as_torchvisions_own_transforms_do(mixed: Path, weights: str) -> None:
    config = RunConfig("resnet50", DatasetConfig("imagefolder", str(mixed)), model_args={"pretrained": weights})
    task = task_of(config)
    loading = Loading(torch.device("cpu"), 4)
    found = torch.cat([batch for batch, _ in task.feed("test", loading).epoch(0)])
    transform = torchvision.models.get_model_weights("resnet50")[weights].transforms()
    for image, path in zip(found, sorted(mixed.glob("val/*/*")), strict=True):
        expected = transform(Image.open(path).convert("RGB"))
        assert torch.allclose(image, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_size_that_the_run_asks_for_goes_before_that_of_the_weights(
    compat: Path, trees: tuple[Path, ...], tmp_path: Path, in_memory: bool
) -> None:
    file = compat / "checkpoints" / "ssl_channels_finetuned.pth.tar"
    config = replace(run_on(trees[2], tmp_path / "run", init_from=str(file)), arch="resnet20_cifar")
    for size in ((24, 16), (32, 32)):
        wished = replace(config.dataset, image_size=size, in_memory=in_memory, workers=0)
        content = train(replace(config, dataset=wished, epochs=1, out_dir=str(tmp_path / str(size[0]))))
        assert content["image_shape"] == [3, *size]
        assert content["mean"] == [0.5, 0.5, 0.5]


@pytest.mark.slow
def test_a_run_on_images_of_all_sizes_goes_on_and_is_evaluated_as_it_began(mixed: Path, tmp_path: Path) -> None:
    config = replace(run_on(mixed, tmp_path / "run"), epochs=1)
    content = train(config)
    assert (content["preprocessing"]["resize"], content["image_shape"]) == (37, [3, 32, 32])
    again = train(replace(config, epochs=2))
    assert again["preprocessing"] == content["preprocessing"]
    assert again["run"] == content["run"]
    wished = replace(config.dataset, image_size=(32, 32), augment="resized_crop", in_memory="auto", workers=0)
    config = replace(config, dataset=wished, out_dir=str(tmp_path / "other"))
    content = train(config)
    assert train(replace(config, epochs=2))["preprocessing"] == content["preprocessing"]


@pytest.mark.slow
def test_published_weights_have_no_optimizer_to_go_on_with(tmp_path: Path, own: Path, trees: tuple[Path, ...]) -> None:
    write_checkpoint(tmp_path / "c.pt", {**read_checkpoint(own), "optimizer": {}})
    with pytest.raises(CheckpointError, match=r"c.pt: has no optimizer to go on with; start with a fresh one"):
        train(replace(run_on(trees[0], tmp_path / "run", continue_from=str(tmp_path / "c.pt")), epochs=4))


@pytest.mark.slow
def test_random_parts_are_other_ones_in_each_epoch_and_the_same_for_a_seed(mixed: Path) -> None:
    images = datasets.load(DatasetConfig("imagefolder", str(mixed), validation=0.3), made_for=(64, 64))

    def epoch(number: int, workers: int = 0) -> torch.Tensor:
        feed = TrainFeed(replace(images, workers=workers), 5, "cpu", seed=3)  # type: ignore[arg-type]
        return torch.cat([batch for batch, _ in feed.epoch(number)])

    assert epoch(0).shape == (12, 3, 64, 64)
    assert torch.equal(epoch(0), epoch(0, workers=2))
    assert not torch.equal(epoch(0), epoch(1))
    assert float(epoch(0).abs().max()) < 10


@pytest.mark.slow
def test_arrays_are_resized_by_the_feed() -> None:
    images = datasets.load(DatasetConfig("digits"))
    seen = of_published("resnet18", True, "here")
    batch, _ = next(EvalFeed(images, "test", 3, "cpu", preprocessing=seen).epoch(0))
    pixels = torch.from_numpy(images.test_images[:3].copy()).permute(0, 3, 1, 2)  # type: ignore[union-attr]
    chain = [v2.Resize(256), v2.CenterCrop(224), v2.ToDtype(torch.float32, scale=True)]
    expected = v2.Compose([*chain, v2.Normalize(seen.mean, seen.std)])(pixels)
    assert torch.allclose(batch, expected, atol=1e-5)


@pytest.mark.parametrize(("given", "wanted"), [("rgb", "bgr"), ("rgb", "grey"), ("grey", "rgb")])
def test_channels_are_in_the_order_that_the_weights_want(given: str, wanted: str) -> None:
    images = datasets.load(DatasetConfig("digits", channels=given))
    if given == "rgb":
        tinted = images.test_images * np.array([1, 2, 3], dtype=np.uint8) // 3  # type: ignore[union-attr]
        images = replace(images, test_images=tinted)  # type: ignore[type-var]
    count = 1 if wanted == "grey" else 3
    seen = Preprocessing((0.0,) * count, (1.0,) * count, (32, 32), channels=wanted)
    batch, _ = next(EvalFeed(images, "test", 4, "cpu", preprocessing=seen).epoch(0))
    for image, pixels in zip(batch, images.test_images, strict=False):  # type: ignore[union-attr]
        if wanted == "bgr":
            expected = pixels[..., ::-1]
        elif wanted == "grey":
            expected = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        else:
            expected = np.repeat(pixels, 3, axis=2)
        assert np.allclose(image.permute(1, 2, 0).numpy() * 255, expected, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_network_of_one_channel_is_trained_and_evaluated(
    trees: tuple[Path, ...], tmp_path: Path, in_memory: bool
) -> None:
    config = run_on(trees[0], tmp_path)
    grey = replace(config.dataset, channels="grey", in_memory=in_memory, workers=0)
    config = replace(config, arch=f"{__name__}:OneChannel", dataset=grey, epochs=1)
    content = train(config)
    assert content["image_shape"] == [1, 32, 32]
    task = task_of(replace(config, dataset=replace(grey, channels="rgb")))  # the weights say it
    found = evaluate_checkpoint(tmp_path / "checkpoint.pt", task, "test", "cpu", arch=config.arch)
    assert found.samples == 300


@pytest.mark.slow
def test_a_teacher_sees_images_as_it_wants_them(compat: Path, trees: tuple[Path, ...], own: Path) -> None:
    file = compat / "checkpoints" / "ssl_4D_5Lremoved_finetuned.pth.tar"
    student = of_checkpoint(read_checkpoint(own), "own")
    images = datasets.load(DatasetConfig("imagefolder", str(trees[0])))
    teacher = load_teacher(Distillation(checkpoint=str(file)), Classification(images, student))
    wanted = of_distiller("resnet20_cifar")
    plain = model_of(read_any(file), "file")
    for (given, _), (meant, _) in zip(
        EvalFeed(images, "test", 100, "cpu", preprocessing=student),
        EvalFeed(images, "test", 100, "cpu", preprocessing=wanted),
        strict=True,
    ):
        with torch.no_grad():
            assert torch.allclose(teacher(given), plain(meant), atol=1e-3)


def test_a_teacher_for_other_sizes_and_channels() -> None:
    seen: list[torch.Tensor] = []
    network = nn.Module()
    network.forward = lambda images: seen.append(images)  # type: ignore[method-assign]
    given = Preprocessing((0.5,) * 3, (0.5,) * 3, (8, 8))
    for wanted in (
        Preprocessing((0.2,), (0.3,), (16, 12), channels="grey"),
        Preprocessing((0.2,) * 3, (0.3,) * 3, (4, 4), channels="bgr"),
    ):
        Translated(network, given, wanted)(torch.ones(2, 3, 8, 8))
        assert seen[-1].shape == (2, *wanted.image_shape)
        assert torch.allclose(seen[-1], torch.full_like(seen[-1], (1 - 0.2) / 0.3), atol=1e-4)


@pytest.mark.slow
def test_gates_that_are_off_leave_their_layers_out(compat: Path, trees: tuple[Path, ...]) -> None:
    file = compat / "checkpoints" / "ssl_4D_5Lremoved_finetuned.pth.tar"
    content = read_any(file)
    layers = [f"layer1.{block}.conv{number}" for block in (0, 1) for number in (1, 2)]
    assert removed_layers(content) == {"removed": [*layers, "layer2.2.conv2"]}
    model = model_of(content, str(file))
    block = model.layer1[0]  # type: ignore[index,union-attr]
    images = torch.rand(2, 16, 8, 8)
    assert torch.equal(block(images), 2 * images)  # type: ignore[operator]


@pytest.mark.slow
def test_a_layer_that_was_pruned_away_keeps_its_gate(compat: Path) -> None:
    from raydistill.training.distiller_checkpoint import _as_own, read_distiller_checkpoint

    found = read_distiller_checkpoint(compat / "checkpoints" / "ssl_4D_5Lremoved_finetuned.pth.tar")
    name = "layer2.2.conv2.weight"
    masked = replace(found, masks={name: torch.zeros_like(found.weights[name])})
    assert "layer2.2.conv2" not in _as_own(masked)["run"]["model_args"]["removed"]
    assert _as_own(replace(found, arch="resnet50"))["run"]["model_args"] == {}


@pytest.mark.slow
def test_fine_tuning_keeps_layers_removed(compat: Path, trees: tuple[Path, ...], tmp_path: Path) -> None:
    file = compat / "checkpoints" / "ssl_4D_5Lremoved_finetuned.pth.tar"
    first = replace(run_on(trees[0], tmp_path / "a", init_from=str(file)), arch="resnet20_cifar", epochs=1, lr=1e-4)
    second = replace(first, out_dir=str(tmp_path / "b"), init_from=str(tmp_path / "a" / "checkpoint.pt"))
    before = right(trees[0], file, tmp_path, "resnet20_cifar")
    for config in (first, second):
        content = train(config)
        assert len(content["run"]["model_args"]["removed"]) == 5
        after = right(trees[0], Path(str(config.out_dir)) / "checkpoint.pt", tmp_path, "resnet20_cifar")
        assert after > before - 30


@pytest.mark.parametrize("name", ["conv1", "layer2.0.conv1", "layer9.0.conv1", "layer1.0.bn1"])
def test_only_layers_that_keep_the_shape_can_be_left_out(name: str) -> None:
    with pytest.raises(ConfigError, match="refuses its arguments"):
        models.create("resnet20_cifar", 10, {"removed": [name]})


OTHER = {"mean": [0.1, 0.2, 0.3], "std": [0.9, 0.8, 0.7], "image_size": [32, 32]}
SAID = {"mean": (0.1, 0.2, 0.3), "std": (0.9, 0.8, 0.7)}


@pytest.fixture
def plain(own: Path, tmp_path: Path) -> Path:
    """The weights of a checkpoint, and nothing else."""
    path = tmp_path / "model.pt"
    torch.save(read_checkpoint(own)["model"], path)
    return path


@pytest.mark.slow
def test_what_is_said_of_plain_weights_is_as_if_their_file_said_it(
    plain: Path, own: Path, trees: tuple[Path, ...], tmp_path: Path
) -> None:
    content = read_checkpoint(own)
    whole = tmp_path / "whole.pt"
    write_checkpoint(whole, {**content, "preprocessing": OTHER, "mean": OTHER["mean"], "std": OTHER["std"]})
    data = DatasetConfig("imagefolder", str(trees[0]))
    arch = content["run"]["arch"]
    run = RunConfig(arch, data, continue_from=str(plain), device="cpu", **SAID)  # type: ignore[arg-type]
    task = task_of(run)
    assert task.described()["mean"] == OTHER["mean"]
    said = evaluate_checkpoint(plain, task, "test", device="cpu", arch=arch)
    unsaid = task_of(replace(run, mean=None, std=None))
    expected = evaluate_checkpoint(whole, unsaid, "test", device="cpu", arch=arch)
    assert said == expected
    assert evaluate_checkpoint(plain, unsaid, "test", device="cpu", arch=arch).metrics["loss"] != said.metrics["loss"]
    trained = replace(run, continue_from=None, init_from=str(plain), epochs=1, out_dir=str(tmp_path / "run"))
    list(fit(trained))
    kept = read_checkpoint(tmp_path / "run/checkpoint.pt")
    assert (kept["preprocessing"]["mean"], kept["run"]["std"]) == (OTHER["mean"], SAID["std"])
    with pytest.raises(CheckpointError, match=r"was trained with mean \(0.1, 0.2, 0.3\), got None"):
        list(fit(replace(trained, mean=None, std=None, epochs=2)))
