"""A user's own loss and augmentation, named in a sweep file: they train, and what is wrong is a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn import functional

from raydistill import datasets
from raydistill.compression.ranks import Ranks
from raydistill.datasets import ArrayDataset, DatasetConfig, StreamedDataset
from raydistill.errors import CheckpointError, ConfigError, TrainingError
from raydistill.records import EpochMetrics
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import check_plan
from raydistill.tasks import TaskConfig
from raydistill.tasks.classification.feed import TrainFeed
from raydistill.tasks.classification.loss import classification_loss, own_loss
from raydistill.training import RunConfig, fit
from tests.sweep.conftest import SWEEP, changed

OWN = "tests.tasks.classification.own:"
COUNT = 22


def trained(folder: Path, **more: Any) -> list[EpochMetrics]:
    run = RunConfig(
        "simplenet_cifar", epochs=2, batch_size=128, lr=0.05, out_dir=str(folder), threads=1, tensorboard=False,
        device="cpu", **{"dataset": DatasetConfig("digits"), **more},
    )  # fmt: skip
    return list(fit(run))


@pytest.mark.slow
def test_an_own_loss_is_what_is_trained(tmp_path: Path) -> None:
    task = TaskConfig("classification", {"loss": f"{OWN}SMOOTHED"})
    own, usual = trained(tmp_path / "own", task=task), trained(tmp_path / "usual")
    assert own[1].train_loss < own[0].train_loss
    assert own[0].train_loss != usual[0].train_loss
    with pytest.raises(CheckpointError, match="loss"):
        trained(tmp_path / "own")  # a run goes on only with the same


def test_it_is_of_each_exit_and_each_auxiliary_classifier() -> None:
    torch.manual_seed(0)
    first, last = torch.randn(5, 4), torch.randn(5, 4)
    labels = torch.tensor([0, 1, 2, 3, 1])
    by_hand = [functional.cross_entropy(logits, labels, label_smoothing=0.2) for logits in (first, last)]
    of = own_loss(f"{OWN}SMOOTHED").of
    assert float(classification_loss(last, labels, (), of)) == pytest.approx(float(by_hand[1]))
    both = classification_loss([first, last], labels, (0.25,), of)
    assert float(both) == pytest.approx(0.25 * float(by_hand[0]) + 0.75 * float(by_hand[1]))


@pytest.fixture
def arrays() -> ArrayDataset:
    """mean 0 and std 1/255: a normalised value is the raw pixel, none of them black."""
    images = np.random.default_rng(0).integers(1, 256, (COUNT, 6, 8, 3), dtype=np.uint8)
    labels, classes = np.arange(COUNT), tuple(map(str, range(COUNT)))
    return ArrayDataset(
        "own", classes, (0.0,) * 3, (1 / 255,) * 3, f"{OWN}ERASED", images, labels, images, labels,
        np.arange(COUNT), np.arange(1),
    )  # fmt: skip


def epoch(dataset: Any, number: int = 0, ranks: Ranks | None = None, seed: int = 3) -> list[tuple[Any, Any]]:
    return list(TrainFeed(dataset, 8, "cpu", seed, ranks=ranks).epoch(number))


def same(first: list[tuple[Any, Any]], second: list[tuple[Any, Any]]) -> bool:
    return all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, second, strict=True))


def test_an_own_augmentation_takes_the_place_of_crops_and_flips(arrays: ArrayDataset) -> None:
    labels = []
    for images, own in epoch(arrays):
        for image, label in zip(images, own.tolist(), strict=True):
            raw = torch.from_numpy(arrays.train_images[label]).permute(2, 0, 1)
            black = image.round() == 0
            assert int(black.all(0).sum()) == 1
            assert torch.equal(image.round()[~black].byte(), raw[~black])
        labels += own.tolist()
    assert sorted(labels) == list(range(COUNT))


def test_it_depends_on_seed_epoch_and_batch_alone(arrays: ArrayDataset) -> None:
    torch.manual_seed(1)
    once = epoch(arrays, 1)
    torch.manual_seed(2)
    assert same(epoch(arrays, 1), once)
    assert not same(epoch(arrays, 2), once)
    assert not same(epoch(arrays, 1, seed=4), once)


def test_several_ranks_have_the_rows_of_one(arrays: ArrayDataset) -> None:
    alone = epoch(arrays, 1)
    shares = [epoch(arrays, 1, Ranks(rank, 3)) for rank in range(3)]
    for index, (images, labels) in enumerate(alone):
        for rank, share in enumerate(shares):
            assert torch.equal(share[index][0], images[rank::3])
            assert torch.equal(share[index][1], labels[rank::3])


def test_streamed_images_are_changed_as_those_in_memory_are(arrays: ArrayDataset, tmp_path: Path) -> None:
    names = [f"{number:02}.png" for number in range(COUNT)]
    for name, image in zip(names, arrays.train_images, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    files = np.array([name.encode() for name in names])
    streamed = StreamedDataset(
        "own", arrays.classes, arrays.mean, arrays.std, arrays.augment, str(tmp_path), files, arrays.train_labels,
        files, arrays.test_labels, arrays.train_index, arrays.validation_index, (6, 8), workers=0,
    )  # fmt: skip
    assert same(epoch(streamed, 1), epoch(arrays, 1))


@pytest.mark.slow
def test_an_own_augmentation_trains(tmp_path: Path) -> None:
    own = trained(tmp_path / "own", dataset=DatasetConfig("digits", augment=f"{OWN}ERASED"))
    plain = trained(tmp_path / "plain", dataset=DatasetConfig("digits", augment="none"))
    assert own[1].train_loss < own[0].train_loss
    assert own[0].train_loss != plain[0].train_loss


def test_one_that_goes_wrong_in_training_ends_it_with_a_line(arrays: ArrayDataset) -> None:
    feed = TrainFeed(arrays, 8, "cpu", seed=0)
    feed._own = replace(feed._own, change=lambda images, generator: images[:1])  # type: ignore[type-var]
    with pytest.raises(TrainingError, match=r"erased must give uint8 images of the shape it gets, \(8, 3, 6, 8\), got"):
        next(feed.epoch(0))


def test_a_sweep_file_names_both(tmp_path: Path, write: Callable[..., Path]) -> None:
    sweep = load_sweep(write(("dataset/augment", f"{OWN}ERASED"), ("task", {"args": {"loss": f"{OWN}SMOOTHED"}})))
    check_plan(sweep)
    assert sweep.dataset.augment == f"{OWN}ERASED"
    assert sweep.task.args == {"loss": f"{OWN}SMOOTHED"}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(*changes: tuple[str, Any]) -> Path:
        mapping = SWEEP
        for path, value in changes:
            mapping = changed(mapping, path, value)
        file = tmp_path / "space.yaml"
        file.write_text(yaml.safe_dump(mapping, sort_keys=False))
        return file

    return written


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ERASE", "dataset.augment: module 'tests.tasks.classification.own' has no such augmentation"),
        ("erased", "dataset.augment: is not an Augmentation"),
        ("SMOOTHED", "dataset.augment: is not an Augmentation"),
        ("OF_ITS_OWN_WILL", "will must be a function of its images and its generator"),
        ("HALVES", "halves must give uint8 images of the shape it gets, (4, 3, 8, 8), got 'torch.uint8 (4, 3, 4, 8)'"),
        ("FLOATS", "floats must give uint8 images of the shape it gets"),
        ("FAILS", "fails fails (AttributeError"),
    ],
)
def test_a_wrong_augmentation_is_a_line_when_the_file_is_read(write: Callable[..., Path], name: str, says: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(ConfigError) as caught:
        load_sweep(write(("dataset/augment", OWN + name)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_augmentation_that_is_none_is_told_the_menu(write: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"dataset.augment: must be one of auto, none, crop, .* did you mean 'crop'"):
        load_sweep(write(("dataset/augment", "crap")))
    with pytest.raises(ConfigError, match=r"dataset.augment: unknown augmentation, got 'crap'"):
        datasets.check(DatasetConfig("digits", augment="crap"))


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        ("smoothed", "task.args.loss: must be one's own, as pkg.mod:LOSS, got 'smoothed'"),
        (f"{OWN}smoothed", "task.args.loss: is not a Loss"),
        (f"{OWN}A_LOSS_A_SAMPLE", "must give a finite scalar that can be differentiated, got (2,)"),
        (f"{OWN}CONSTANT", "must give a finite scalar that can be differentiated"),
        (f"{OWN}LOSES_ITS_WAY", "fails (ValueError: Expected input batch_size (2) to match target batch_size (1)"),
    ],
)
def test_a_wrong_loss_is_a_line_before_the_data_are_read(write: Callable[..., Path], loss: str, says: str) -> None:
    sweep = load_sweep(write(("task", {"args": {"loss": loss}})))
    with pytest.raises(ConfigError) as caught:
        check_plan(sweep)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
