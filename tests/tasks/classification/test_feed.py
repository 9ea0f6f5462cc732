"""Batches as training sees them. Images are their own labels, so each can be traced back to its source."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raydistill.datasets import ArrayDataset, StreamedDataset
from raydistill.errors import ConfigError, DataError
from raydistill.tasks.classification.feed import EvalFeed, TrainFeed, batch_bounds

TRAIN, HELD_OUT, TEST = 40, 7, 9
HEIGHT, WIDTH = 6, 8


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def arrays() -> ArrayDataset:
    """mean 0 and std 1/255: a normalised value is the raw pixel. All arrays read-only, as Ray hands them out."""
    rng = np.random.default_rng(0)
    count = TRAIN + HELD_OUT
    held_out = np.arange(3, count, 7)
    values = {
        "train_images": rng.integers(1, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8),
        "train_labels": np.arange(count),
        "test_images": rng.integers(1, 256, (TEST, HEIGHT, WIDTH, 3), dtype=np.uint8),
        "test_labels": np.arange(TEST),
        "train_index": np.setdiff1d(np.arange(count), held_out),
        "validation_index": held_out,
    }
    for value in values.values():
        value.setflags(write=False)
    classes = tuple(str(number) for number in range(count))
    return ArrayDataset("own", classes, (0.0,) * 3, (1 / 255,) * 3, "crop_flip", **values)


@pytest.fixture
def files(arrays: ArrayDataset, tmp_path: Path) -> StreamedDataset:
    """The same images as PNG files."""
    names: dict[str, list[bytes]] = {"train": [], "test": []}
    for split, images in (("train", arrays.train_images), ("test", arrays.test_images)):
        for number, image in enumerate(images):
            name = f"{split} {number:02} é.png"
            Image.fromarray(image).save(tmp_path / name)
            names[split].append(name.encode())
    return StreamedDataset(
        "own", arrays.classes, arrays.mean, arrays.std, arrays.augment, str(tmp_path),
        np.array(names["train"]), arrays.train_labels, np.array(names["test"]), arrays.test_labels,
        arrays.train_index, arrays.validation_index, (HEIGHT, WIDTH), workers=0,
    )  # fmt: skip


def pixels(images: torch.Tensor) -> np.ndarray:
    return np.rint(images.permute(0, 2, 3, 1).numpy()).astype(np.uint8)


def crops_of(image: np.ndarray) -> dict[bytes, tuple[int, int, bool]]:
    """Every crop that there is of one image, by its bytes."""
    found = {}
    for flip in (False, True):
        padded = np.pad(image[:, ::-1] if flip else image, ((4, 4), (4, 4), (0, 0)))
        for dy in range(9):
            for dx in range(9):
                found[padded[dy : dy + HEIGHT, dx : dx + WIDTH].tobytes()] = (dy, dx, flip)
    return found


@pytest.mark.slow
def test_each_train_image_comes_once_an_epoch_as_one_of_its_crops(arrays: ArrayDataset) -> None:
    feed = TrainFeed(arrays, 16, "cpu", seed=5)
    assert (feed.samples, feed.batches) == (TRAIN, 3)
    known = {label: crops_of(arrays.train_images[label]) for label in arrays.train_index}
    seen = []
    for epoch in range(30):
        labels_of_epoch = []
        sizes = []
        for images, labels in feed.epoch(epoch):
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert labels.dtype == torch.int64
            sizes.append(len(labels))
            for image, label in zip(pixels(images), labels.tolist(), strict=True):
                labels_of_epoch.append(label)
                if image.any():  # a crop may lie wholly in the padding of such a small image
                    seen.append(known[label][image.tobytes()])
        assert sizes == [16, 16, 8]
        assert sorted(labels_of_epoch) == arrays.train_index.tolist()
        assert labels_of_epoch != sorted(labels_of_epoch)
    assert len(set(seen)) > 150  # of 162
    assert np.mean([flip for _, _, flip in seen]) == pytest.approx(0.5, abs=0.06)


def run(feed: TrainFeed, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(feed.epoch(epoch))


def same(first: list, second: list) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(first, second, strict=True)
    )


def test_a_resumed_run_sees_the_batches_of_one_never_interrupted(arrays: ArrayDataset) -> None:
    whole = TrainFeed(arrays, 16, "cpu", seed=5)
    epochs = [run(whole, epoch) for epoch in range(3)]
    torch.manual_seed(99)
    np.random.seed(99)
    assert same(run(TrainFeed(arrays, 16, "cpu", seed=5), 2), epochs[2])
    assert not same(epochs[1], epochs[2])
    assert not same(run(TrainFeed(arrays, 16, "cpu", seed=6), 2), epochs[2])


def test_an_epoch_left_in_the_middle_does_not_disturb_the_next(arrays: ArrayDataset) -> None:
    feed = TrainFeed(arrays, 16, "cpu", seed=5)
    expected = run(TrainFeed(arrays, 16, "cpu", seed=5), 1)
    next(feed.epoch(0))
    assert same(run(feed, 1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["none", "crop", "crop_flip"])
@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_those_from_memory(
    arrays: ArrayDataset, files: StreamedDataset, augment: str, workers: int
) -> None:
    from_memory = TrainFeed(replace(arrays, augment=augment), 16, "cpu", seed=5)
    streamed = TrainFeed(replace(files, augment=augment, workers=workers), 16, "cpu", seed=5)
    assert same(run(streamed, 3), run(from_memory, 3))
    for split in ("train", "validation", "test"):
        assert same(list(EvalFeed(files, split, 4, "cpu")), list(EvalFeed(arrays, split, 4, "cpu")))


def test_without_augmentation_images_are_as_they_are(arrays: ArrayDataset) -> None:
    for images, labels in TrainFeed(replace(arrays, augment="none"), 16, "cpu", seed=5).epoch(0):
        assert (pixels(images) == arrays.train_images[labels.numpy()]).all()


@pytest.mark.parametrize(("split", "count"), [("train", TRAIN), ("validation", HELD_OUT), ("test", TEST)])
def test_evaluation_reads_each_image_of_its_split_once_in_order(arrays: ArrayDataset, split: str, count: int) -> None:
    feed = EvalFeed(arrays, split, 4, "cpu")
    source = arrays.test_images if split == "test" else arrays.train_images
    wanted = {"train": arrays.train_index, "validation": arrays.validation_index, "test": np.arange(TEST)}[split]
    for _ in range(2):  # a feed can be read again
        batches = list(feed)
        labels = np.concatenate([batch[1].numpy() for batch in batches])
        assert (labels == wanted).all()
        assert (np.concatenate([pixels(batch[0]) for batch in batches]) == source[wanted]).all()
    assert (feed.samples, feed.batches) == (count, len(batches))


def test_bounds_keep_the_last_part_and_never_leave_one_image_alone() -> None:
    assert batch_bounds(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert batch_bounds(8, 4) == [(0, 4), (4, 8)]
    assert batch_bounds(9, 4) == [(0, 4), (4, 9)]
    assert batch_bounds(3, 256) == [(0, 3)]
    assert batch_bounds(1, 256) == [(0, 1)]
    assert batch_bounds(3, 1) == [(0, 1), (1, 2), (2, 3)]


def test_a_batch_that_took_one_image_more_is_whole(arrays: ArrayDataset) -> None:
    batches = run(TrainFeed(arrays, 13, "cpu", seed=0), 0)
    assert [len(labels) for _, labels in batches] == [13, 13, 14]
    assert sorted(np.concatenate([labels.numpy() for _, labels in batches])) == arrays.train_index.tolist()


@pytest.mark.slow
def test_no_copy_of_the_dataset_is_made() -> None:
    """Resident memory grows by batches, not by the 300 MB of images."""
    import psutil

    images = np.zeros((100_000, 32, 32, 3), np.uint8)
    images[:, 0, 0, 0] = 1  # touch every page
    images.setflags(write=False)
    labels = np.zeros(100_000, np.int64)
    index, held_out = np.arange(99_000), np.arange(99_000, 100_000)
    dataset = ArrayDataset(
        "big", ("a",), (0.5,) * 3, (0.2,) * 3, "crop", images, labels, images[:10], labels[:10], index, held_out,
    )  # fmt: skip
    before = psutil.Process().memory_info().rss
    feed = TrainFeed(dataset, 256, "cpu", seed=0)
    for _, _ in zip(range(20), feed.epoch(0), strict=False):
        pass
    for _ in EvalFeed(dataset, "validation", 256, "cpu").epoch(0):
        pass
    assert psutil.Process().memory_info().rss - before < 60e6


def test_a_file_that_went_bad_names_itself_in_one_line(files: StreamedDataset) -> None:
    (Path(files.root) / "train 05 é.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        run(TrainFeed(files, 16, "cpu", seed=0), 0)
    assert "train 05 é.png: cannot be decoded" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_worker_hands_the_same_line_back(files: StreamedDataset) -> None:
    (Path(files.root) / "train 05 é.png").unlink()
    with pytest.raises(DataError) as caught:
        run(TrainFeed(replace(files, workers=2), 16, "cpu", seed=0), 0)
    assert "train 05 é.png: cannot be decoded" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_arguments_are_named(arrays: ArrayDataset) -> None:
    with pytest.raises(ConfigError, match=r"training\.batch_size"):
        TrainFeed(arrays, 0, "cpu", seed=0)
    with pytest.raises(ConfigError, match=r"training\.seed"):
        TrainFeed(arrays, 4, "cpu", seed=-1)
    with pytest.raises(ConfigError, match="train, validation or test, got 'val'"):
        EvalFeed(arrays, "val", 4, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("streamed", [False, True])
def test_a_gpu_gets_the_batches_of_the_cpu(arrays: ArrayDataset, files: StreamedDataset, streamed: bool) -> None:
    expected = run(TrainFeed(arrays, 16, "cpu", seed=5), 1)
    found = run(TrainFeed(files if streamed else arrays, 16, "cuda", seed=5), 1)
    assert all(images.is_cuda and labels.is_cuda for images, labels in found)
    assert same([(images.cpu(), labels.cpu()) for images, labels in found], expected)
    for split in ("validation", "test"):
        plain = [(images.cpu(), labels.cpu()) for images, labels in EvalFeed(arrays, split, 4, "cuda").epoch(0)]
        assert same(plain, list(EvalFeed(arrays, split, 4, "cpu")))


def test_a_fraction_of_train_takes_other_images_in_each_epoch(arrays: ArrayDataset) -> None:
    feed = TrainFeed(arrays, 8, "cpu", seed=1, fraction=0.5)
    assert (feed.samples, feed.batches) == (20, 3)
    seen = [torch.cat([labels for _, labels in feed.epoch(epoch)]).tolist() for epoch in range(4)]
    assert all(len(set(labels)) == 20 and set(labels) <= set(arrays.train_index.tolist()) for labels in seen)
    assert len(set().union(*seen)) > 30, "the same images every time"


def test_a_fraction_for_evaluation_is_always_the_same_images_in_order(arrays: ArrayDataset) -> None:
    feeds = [EvalFeed(arrays, "test", 4, "cpu", fraction=0.33) for _ in range(2)]
    labels = [torch.cat([labels for _, labels in feed]).tolist() for feed in feeds]
    assert labels[0] == labels[1] == sorted(labels[0])
    assert len(labels[0]) == 3


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan"), True])
def test_a_fraction_out_of_range_is_one_line(arrays: ArrayDataset, fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"training.effective_train_size: must be a fraction above 0"):
        TrainFeed(arrays, 8, "cpu", seed=1, fraction=fraction)
