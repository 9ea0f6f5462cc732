"""Batches of torch's own datasets and loaders: every image once, the same again, shared among ranks."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from raydistill.compression.ranks import Ranks
from raydistill.datasets import ArrayDataset, BatchedDataset, DatasetConfig, load
from raydistill.datasets.own_data import own_data
from raydistill.errors import DataError
from raydistill.schedule import parse_schedule
from raydistill.tasks import Loading, Weights
from raydistill.tasks.classification import Classification
from raydistill.tasks.classification.batched_feed import BatchedFeed
from raydistill.training import RunConfig, fit, read_checkpoint
from tests.datasets.own_sources import Floats, Pictures, Stream, nested

OWN = "tests.datasets.own_sources:"
CPU = torch.device("cpu")
KINDS = ("stream", "loaders", "items", "flipped")


def dataset_of(kind: str) -> BatchedDataset:
    config = DatasetConfig(OWN + ("parts" if kind == "items" else kind), in_memory=False, workers=0)
    found = load(config)
    assert isinstance(found, BatchedDataset)
    return found


def feed_of(kind: str, split: str = "train", loading: Loading | None = None) -> BatchedFeed:
    dataset = dataset_of(kind)
    return BatchedFeed(dataset, split, loading or Loading(CPU, 8), dataset.preprocessing)


def numbers(feed: BatchedFeed, images: Tensor) -> list[int]:
    """Which pictures these are, by their brightness."""
    dataset = feed._dataset
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (dataset.mean, dataset.std))
    pixels = ((images * std + mean) * 255).round().amax((1, 2, 3)).long()
    return [value - 100 if value < 200 else 255 - value for value in pixels.tolist()]


@pytest.mark.parametrize(
    ("kind", "train", "validation"),
    [("stream", [8, 8, 8, 9], [8, 2]), ("loaders", [5] * 6, [4, 4, 2]), ("items", [8, 8, 8, 6], [9])],
)
def test_each_image_comes_once_with_its_label_in_batches_that_were_announced(
    kind: str, train: list[int], validation: list[int]
) -> None:
    for split, sizes in (("train", train), ("validation", validation)):
        feed = feed_of(kind, split)
        batches = list(feed.epoch(0))
        assert [len(labels) for _, labels in batches] == sizes == [feed.rows(i)[0] for i in range(feed.batches)]
        assert feed.samples == sum(sizes)
        seen = [number for images, _ in batches for number in numbers(feed, images)]
        assert len(set(seen)) == sum(sizes)
        assert [number % 2 for number in seen] == [label for _, labels in batches for label in labels.tolist()]
        assert (batches[0][0].dtype, batches[0][1].dtype) == (torch.float32, torch.int64)
        assert batches[0][0].is_contiguous(memory_format=torch.channels_last)
        if split == "validation":
            assert seen == sorted(seen)


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_is_the_same_again_whatever_else_draws_and_leaves_the_loops_chance_alone(kind: str) -> None:
    feed = feed_of(kind)

    def epoch(number: int, seed: int) -> tuple[Tensor, list[float]]:
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        images, drawn = [], []
        for batch, _ in feed.epoch(number):
            images.append(batch)
            drawn += [float(torch.rand(())), float(np.random.rand()), random.random()]
        return torch.cat(images), drawn

    first, drawn = epoch(1, 0)
    again, others = epoch(1, 7)
    assert torch.equal(first, again)
    torch.manual_seed(7)
    assert others[::3] == [float(torch.rand(())) for _ in range(feed.batches)]
    assert drawn != others
    if kind != "stream":
        assert not torch.equal(first, epoch(2, 0)[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stream", "loaders", "items"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_ranks_share_each_batch(kind: str, split: str) -> None:
    whole = [numbers(feed_of(kind, split), images) for images, _ in feed_of(kind, split).epoch(3)]
    shares = []
    for rank in range(3):
        feed = feed_of(kind, split, Loading(CPU, 8, ranks=Ranks(rank, 3)))
        batches = [numbers(feed, images) for images, _ in feed.epoch(3)]
        shares.append(batches)
        assert [feed.rows(i) for i in range(feed.batches)] == [(len(b[rank::3]), len(b)) for b in whole]
        assert batches == [batch[rank::3] for batch in whole if batch[rank::3]]
    counted = sum(len(batch) for batches in shares for batch in batches)
    assert counted == sum(map(len, whole))


def test_a_fraction_takes_fewer_batches_of_a_loader_and_fewer_images_of_others() -> None:
    assert feed_of("loaders", "train", Loading(CPU, 8, fraction=0.5)).batches == 3
    feed = feed_of("stream", "train", Loading(CPU, 8, fraction=0.5))
    assert (feed.samples, sum(len(labels) for _, labels in feed.epoch(0))) == (16, 16)


@pytest.mark.slow
def test_worker_processes_give_the_same_as_none() -> None:
    dataset = dataset_of("items")
    feeds = [
        BatchedFeed(replace(dataset, workers=workers), "train", Loading(CPU, 8), dataset.preprocessing)
        for workers in (0, 2)
    ]
    for (one, _), (other, _) in zip(*(feed.epoch(4) for feed in feeds), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("held", [True, False])
def test_floats_reach_the_network_as_they_are_whatever_the_weights_want(held: bool) -> None:
    config = DatasetConfig(OWN + "floats", in_memory=held, workers=0, augment="crop_flip" if held else "auto")
    task = Classification.load(config, Weights("resnet18", {"pretrained": True}))
    assert isinstance(task.dataset, ArrayDataset if held else BatchedDataset)
    images = torch.cat([batch for batch, _ in task.feed("test", Loading(CPU, 8)).epoch(0)])
    given = {float(item["pixel_values"].max()) for item in map(Floats().__getitem__, range(40))}  # type: ignore[attr-defined]
    assert set(images.amax((1, 2, 3)).tolist()) < given
    assert float(images.min()) == -1.5
    assert "used as they are" in task.note
    trained = torch.cat([batch for batch, _ in task.feed("train", Loading(CPU, 8)).epoch(0)])
    assert set(trained.amax((1, 2, 3)).tolist()) < given
    assert set(trained.amin((1, 2, 3)).tolist()) == {-1.5}
    teacher = nn.Identity()
    assert task.teach(teacher, Weights("resnet18", {"pretrained": True})) is teacher


class Shrinks(Stream):
    def __init__(self) -> None:
        super().__init__(0, 20)

    def __len__(self) -> int:
        return 25


class Fails(Pictures):
    def __getitem__(self, position: int) -> object:  # type: ignore[override]
        if position == 15 and self.read > 40:
            raise OSError("the disk\nis gone")
        return super().__getitem__(position)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Shrinks(), "must give 25 images, as its length says, got 20"),
        (Fails(0, 20), r"train\[15\]: cannot be read \(OSError: the disk is gone\)"),
        (DataLoader(Fails(0, 20), 8, collate_fn=nested), r"cannot be read \(.*is gone\)"),
    ],
)
def test_what_goes_wrong_in_mid_epoch_is_one_line(source: object, words: str) -> None:
    parts = {"train": source, "validation": Pictures(20, 5)}
    dataset = own_data(parts, DatasetConfig("m:f", in_memory=False, workers=0))
    assert isinstance(dataset, BatchedDataset)
    feed = BatchedFeed(dataset, "train", Loading(CPU, 8), dataset.preprocessing)
    with pytest.raises(DataError, match=words) as caught:
        [list(feed.epoch(epoch)) for epoch in range(3)]
    assert "\n" not in str(caught.value)


def net(num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
    )


AGP = {
    "version": 1,
    "pruners": {
        "agp": {
            "class": "AutomatedGradualPruner", "initial_sparsity": 0.0, "final_sparsity": 0.5, "weights": ["0.weight"],
        }
    },
    "policies": [{"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1}],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS[:2])
def test_it_is_learned_from_pruned_and_gone_on_with(kind: str, tmp_path: Path) -> None:
    config = RunConfig(
        f"{__name__}:net", dataset=DatasetConfig(OWN + kind, workers=0), epochs=4, batch_size=8, lr=0.3,
        out_dir=str(tmp_path / "whole"), deterministic=True, threads=1, tensorboard=False, device="cpu",
        schedule=parse_schedule(AGP, "agp"),
    )  # fmt: skip
    whole = list(fit(config))
    assert whole[-1].metrics["top1"] == 1.0
    assert whole[-1].layer_sparsity["0.weight"] == pytest.approx(0.5, abs=0.01)
    parts = replace(config, out_dir=str(tmp_path / "parts"))
    run = fit(parts)
    first = [next(run), next(run)]
    run.close()
    assert [e.metrics for e in first + list(fit(parts))] == [e.metrics for e in whole]
    one, other = (read_checkpoint(tmp_path / name / "checkpoint.pt")["model"] for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_of_it_travels_and_is_known_again(kind: str) -> None:
    task = Classification(dataset_of(kind))
    list(task.feed("train", Loading(CPU, 8)).epoch(0))
    arrived = pickle.loads(pickle.dumps(task))
    assert arrived.fingerprint() == task.fingerprint() == Classification(dataset_of(kind)).fingerprint()
    other = replace(task.dataset, classes=("a", "b"))
    assert Classification(other).fingerprint() != task.fingerprint()
    for (one, _), (same, _) in zip(
        *(each.feed("train", Loading(CPU, 8)).epoch(1) for each in (task, arrived)), strict=True
    ):
        assert torch.equal(one, same)
