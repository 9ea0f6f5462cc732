"""A dataset's fingerprint is that of what is learned from, wherever and however it is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raydistill.datasets import ArrayDataset, StreamedDataset
from raydistill.tasks.classification.fingerprint import fingerprint_of_dataset


def arrays() -> ArrayDataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
    return ArrayDataset(
        "own", ("a", "b"), (0.5,) * 3, (0.2,) * 3, "crop", images[:6].copy(), np.array([0, 1] * 3), images[6:].copy(),
        np.array([0, 1]), np.arange(4), np.array([4, 5]),
    )  # fmt: skip


def files(root: str = "/data") -> StreamedDataset:
    names = np.array([b"a/0.png", b"b/1.png"])
    return StreamedDataset(
        "own", ("a", "b"), (0.5,) * 3, (0.2,) * 3, "crop", root, names, np.array([0, 1]), names, np.array([0, 1]),
        np.array([0]), np.array([1]), (4, 4),
    )  # fmt: skip


def test_the_same_content_has_the_same_one() -> None:
    first = fingerprint_of_dataset(arrays())
    assert len(first) == 16
    assert fingerprint_of_dataset(arrays()) == first
    told = replace(arrays(), used_fallback=True, warning="not what you asked for")
    assert fingerprint_of_dataset(told) == first
    assert fingerprint_of_dataset(files("/elsewhere")) == fingerprint_of_dataset(replace(files(), workers=7))
    assert fingerprint_of_dataset(files()) != first


@pytest.mark.parametrize("field", ["train_images", "test_images", "train_labels", "test_labels"])
def test_a_single_value_makes_another(field: str) -> None:
    value = getattr(arrays(), field).copy()
    value.reshape(-1)[0] = 1 - value.reshape(-1)[0] if value.dtype == np.int64 else value.reshape(-1)[0] ^ 1
    assert fingerprint_of_dataset(replace(arrays(), **{field: value})) != fingerprint_of_dataset(arrays())


@pytest.mark.parametrize(
    "changed",
    [{"name": "other"}, {"mean": (0.5, 0.5, 0.4)}, {"augment": "none"}, {"classes": ("b", "a")},
     {"train_index": np.array([1, 0, 2, 3])}],
)  # fmt: skip
def test_what_is_said_of_them_counts_too(changed: dict[str, Any]) -> None:
    assert fingerprint_of_dataset(replace(arrays(), **changed)) != fingerprint_of_dataset(arrays())


def test_younger_fields_count_only_where_they_say_something() -> None:
    """Sweeps that were started before there were such fields go on."""
    before = fingerprint_of_dataset(files())
    for changed in ({"shorter_side": 5}, {"interpolation": "bicubic"}, {"channels": "grey", "mean": (0.5,)}):
        assert fingerprint_of_dataset(replace(files(), **changed)) != before
    assert before == "8141015781fd40af"  # which stands in journals
    assert fingerprint_of_dataset(replace(files(), shorter_side=None, interpolation="bilinear")) == before


def test_moved_files_keep_theirs(tmp_path: Path) -> None:
    assert fingerprint_of_dataset(files(str(tmp_path))) == fingerprint_of_dataset(files())
