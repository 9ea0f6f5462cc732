"""Images decoded as they are needed: the pixels of the files, in the order asked for, whatever decodes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raydistill.datasets import StreamedDataset
from raydistill.errors import DataError
from raydistill.tasks.classification.streaming import stream

CPU = torch.device("cpu")
SIZE = (6, 8)
BOUNDS = [(0, 2), (2, 4), (4, 5)]
ORDER = np.array([3, 0, 4, 1, 3])


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), dtype=np.uint8)


@pytest.fixture
def dataset(pixels: np.ndarray, tmp_path: Path) -> StreamedDataset:
    names = []
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        names.append(f"{number}.png".encode())
    files, labels = np.array(names), np.arange(5)
    return StreamedDataset(
        "own", tuple("abcde"), (0.5,) * 3, (0.2,) * 3, "crop_flip", str(tmp_path), files, labels, files, labels,
        np.arange(4), np.array([4]), SIZE, workers=0,
    )  # fmt: skip


def streamed(dataset: StreamedDataset, crops: np.ndarray | None = None) -> tuple[list[int], np.ndarray, list[int]]:
    """(rows of the batches, all images, all labels)."""
    batches = list(stream(dataset, dataset.train_files, dataset.train_labels, ORDER, BOUNDS, CPU, crops))
    images = torch.cat([images for images, _ in batches]).numpy()
    return [len(labels) for _, labels in batches], images, torch.cat([labels for _, labels in batches]).tolist()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_they_are_the_files_in_the_order_asked_for(dataset: StreamedDataset, pixels: np.ndarray, workers: int) -> None:
    rows, images, labels = streamed(replace(dataset, workers=workers))
    assert (rows, labels) == ([2, 2, 1], ORDER.tolist())
    assert images.dtype == np.uint8
    assert np.array_equal(images, pixels[ORDER])


def test_crops_and_flips_are_those_of_their_rows(dataset: StreamedDataset, pixels: np.ndarray) -> None:
    crops = np.array([[0, 0, 0], [4, 4, 1], [8, 8, 0], [3, 5, 1], [4, 4, 0]])
    _, images, _ = streamed(dataset, crops)
    for image, number, (dy, dx, flip) in zip(images, ORDER, crops, strict=True):
        whole = pixels[number][:, ::-1] if flip else pixels[number]
        padded = np.pad(whole, ((4, 4), (4, 4), (0, 0)))
        assert np.array_equal(image, padded[dy : dy + SIZE[0], dx : dx + SIZE[1]])
    assert np.array_equal(images[4], pixels[3])  # in the middle, not flipped: the image itself
    assert not images[0, :4].any()  # the upper left corner of the padding


def test_grey_is_pillows(dataset: StreamedDataset, pixels: np.ndarray) -> None:
    _, images, _ = streamed(replace(dataset, channels="grey", mean=(0.5,), std=(0.2,)))
    expected = [np.asarray(Image.fromarray(pixels[number]).convert("L")) for number in ORDER]
    assert np.array_equal(images[..., 0], np.stack(expected))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_file_that_is_no_image_is_named_in_one_line(dataset: StreamedDataset, tmp_path: Path, workers: int) -> None:
    (tmp_path / "4.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"4\.png") as caught:
        streamed(replace(dataset, workers=workers))
    assert "\n" not in str(caught.value)
    Image.new("RGB", (3, 3)).save(tmp_path / "4.png")
    with pytest.raises(DataError, match=r"4\.png.*6x8.*3x3|4\.png.*3x3.*6x8"):
        streamed(replace(dataset, workers=workers))
