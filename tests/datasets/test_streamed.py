"""`StreamedDataset`: the face of a dataset whose images stay in their files."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from raydistill.datasets import Preprocessing, StreamedDataset
from raydistill.errors import DataError


def small(**changes: Any) -> StreamedDataset:
    base: dict[str, Any] = {
        "name": "small", "classes": ("a", "b"), "mean": (0.5,) * 3, "std": (0.2,) * 3, "augment": "crop",
        "root": "/data/here", "train_files": np.array([b"train/a/0.png", b"train/b/1.png", b"train/b/2.png"]),
        "train_labels": np.array([0, 1, 1]), "test_files": np.array([b"test/a/9.png"]), "test_labels": np.array([0]),
        "train_index": np.array([0, 1]), "validation_index": np.array([2]), "image_size": (5, 4),
    }  # fmt: skip
    return StreamedDataset(**{**base, **changes})


def test_its_face() -> None:
    dataset = small(shorter_side=6, interpolation="bicubic")
    assert dataset.image_shape == (3, 5, 4)
    assert dataset.num_classes == 2
    assert dataset.nbytes == 4 * 5 * 4 * 3
    assert dataset.preprocessing == Preprocessing((0.5,) * 3, (0.2,) * 3, (5, 4), 6, "bicubic", "rgb")
    assert (dataset.as_they_are, dataset.multi_label) == (False, False)
    assert small(channels="grey", mean=(0.5,), std=(0.2,)).image_shape == (1, 5, 4)


def test_a_file_is_named_by_its_bytes() -> None:
    odd = "train/b/é \udcff.png"  # a name that is no UTF-8
    dataset = small(train_files=np.array([b"train/a/0.png", os.fsencode(odd), b"train/b/2.png"]))
    assert dataset.path(dataset.train_files, 1) == f"/data/here/{odd}"
    assert dataset.path(dataset.test_files, 0) == "/data/here/test/a/9.png"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"train_labels": np.array([0, 1])},
            "dataset 'small': train needs one label a file, .*, got '3 files, 2 labels'",
        ),
        (
            {"test_files": np.array([], dtype="S1"), "test_labels": np.array([])},
            "test needs .*, got '0 files, 0 labels'",
        ),
    ],
)
def test_files_without_labels_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        small(**changes)
