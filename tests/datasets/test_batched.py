from __future__ import annotations

from dataclasses import replace

import numpy as np

from raydistill.datasets.batched import BatchedDataset, Part
from tests.datasets.own_sources import Stream

DATASET = BatchedDataset("mine", ("a", "b"), (0.5,), (0.2,), {"train": Part(Stream(0, 4), 4)}, (6, 8), "grey")


def test_its_face() -> None:
    assert (DATASET.image_shape, DATASET.num_classes, DATASET.nbytes) == ((1, 6, 8), 2, 0)
    assert (DATASET.preprocessing.mean, DATASET.preprocessing.image_size) == ((0.5,), (6, 8))
    assert DATASET.preprocessing.channels == "grey"


def test_what_it_says_of_itself_changes_with_what_is_trained_on_and_with_nothing_else() -> None:
    same = replace(DATASET, workers=7, warning="told", parts={"train": Part(Stream(0, 4), 4)})
    assert same.described() == DATASET.described()
    held = Part(Stream(0, 4), 4, index=np.arange(4))
    for other in (
        replace(DATASET, arguments={"folder": "x"}), replace(DATASET, parts={"train": held}),
        replace(DATASET, parts={"train": Part(Stream(0, 5), 5)}), replace(DATASET, image_size=(8, 8)),
    ):  # fmt: skip
        assert other.described() != DATASET.described()
