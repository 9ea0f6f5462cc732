"""`ArrayDataset`: what it refuses, and that it travels without a copy."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from raydistill.datasets.arrays import ArrayDataset, channel_statistics
from raydistill.errors import DataError


def small(**changes: Any) -> ArrayDataset:
    rng = np.random.default_rng(0)
    base = {
        "name": "small", "classes": ("a", "b"), "mean": (0.5,) * 3, "std": (0.2,) * 3, "augment": "crop",
        "train_images": rng.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8), "train_labels": np.array([0, 1] * 3),
        "test_images": rng.integers(0, 256, (2, 5, 4, 3), dtype=np.uint8), "test_labels": np.array([0, 1]),
        "train_index": np.arange(4), "validation_index": np.array([4, 5]),
    }  # fmt: skip
    return ArrayDataset(**{**base, **changes})


def test_its_face() -> None:
    dataset = small()
    assert dataset.image_shape == (3, 5, 4)
    assert dataset.num_classes == 2
    assert dataset.nbytes == 6 * 60 + 2 * 60 + 8 * (6 + 2 + 4 + 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_images": np.zeros((6, 5, 4, 3), np.float64)}, "train_images must be uint8"),
        ({"train_images": np.zeros((6, 5, 4, 3), np.float32)}, "of one size and type"),
        ({"train_labels": np.zeros((6, 2), np.int64)}, "train_labels must be uint8 of 0 and 1"),
        ({"train_labels": np.zeros((6, 3), np.uint8)}, "(images, classes) = (6, 2)"),
        ({"train_labels": np.full((6, 2), 2, np.uint8)}, "uint8 of 0 and 1"),
        ({"train_labels": np.zeros((6, 2), np.uint8)}, "one label an image, or both several"),
        ({"train_images": np.zeros((6, 3, 5, 4), np.uint8)}, "(N, H, W, 3)"),
        ({"train_images": np.zeros((6, 3, 5, 4), np.uint8).transpose(0, 2, 3, 1)}, "contiguous"),
        ({"train_labels": np.zeros(5, np.int64)}, "one an image"),
        ({"train_labels": np.full(6, 2)}, "train_labels must be in 0 to 1"),
        ({"test_images": np.zeros((2, 9, 9, 3), np.uint8)}, "one size"),
        ({"augment": "mixup"}, "augment must be one of"),
        ({"validation_index": np.array([6])}, "validation_index"),
        ({"train_index": np.array([], dtype=np.int64)}, "train_index"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError) as caught:
        small(**changes)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_travels_out_of_band_without_a_copy_and_arrives_read_only() -> None:
    dataset = small()
    buffers: list[pickle.PickleBuffer] = []
    message = pickle.dumps(dataset, protocol=5, buffer_callback=buffers.append)
    assert len(message) < 2000
    assert sum(buffer.raw().nbytes for buffer in buffers) == dataset.nbytes
    frozen = [memoryview(bytes(buffer.raw())).toreadonly() for buffer in buffers]
    arrived = pickle.loads(message, buffers=frozen)
    assert not arrived.train_images.flags.writeable
    assert (arrived.train_images == dataset.train_images).all()
    assert replace(arrived, name="other").image_shape == (3, 5, 4)


def test_statistics_are_those_of_all_pixels_in_double_precision() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2500, 3, 5, 3), dtype=np.uint8)
    mean, std = channel_statistics(images, chunk=1000)
    flat = images.reshape(-1, 3).astype(np.float64) / 255
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, flat.std(axis=0), rtol=1e-9)


def test_a_constant_channel_can_still_be_divided_by_its_std() -> None:
    assert min(channel_statistics(np.zeros((3, 2, 2, 3), np.uint8))[1]) > 0
