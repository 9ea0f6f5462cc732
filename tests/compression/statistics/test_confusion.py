"""The confusion matrix against a loop, as CSV and as a picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from raydistill.compression.statistics import ConfusionMatrix, confusion, confusion_csv, confusion_png
from raydistill.errors import DataError


def test_counts_over_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = ConfusionMatrix(4)
    assert matrix.counts.tolist() == [[0] * 4] * 4
    expected = np.zeros((4, 4), dtype=int)
    for _ in range(3):
        logits = torch.randn(50, 4, generator=generator)
        labels = torch.randint(0, 4, (50,), generator=generator)
        matrix.update(logits, labels)
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
            expected[label, row.index(max(row))] += 1
    assert matrix.counts.tolist() == expected.tolist()
    assert matrix.counts.dtype == torch.int64
    matrix.update(torch.tensor([3, 3]), torch.tensor([0, 1]))
    assert (matrix.counts.numpy() - expected)[0, 3] == 1
    assert (matrix.counts.numpy() - expected)[1, 3] == 1


def test_rows_are_labels() -> None:
    counts = confusion(torch.tensor([1, 1, 0]), torch.tensor([0, 0, 0]), 2)
    assert counts.tolist() == [[1, 2], [0, 0]]
    rows = list(csv.reader(io.StringIO(confusion_csv(counts, ["cat", "dog"]))))
    assert rows == [["actual", "cat", "dog", "recall"], ["cat", "1", "2", str(1 / 3)], ["dog", "0", "0", ""]]


@pytest.mark.slow
def test_picture_and_faults(tmp_path: Path) -> None:
    counts = torch.arange(9).reshape(3, 3)
    confusion_png(counts, tmp_path / "confusion.png", ["airplane", "bird", "cat"], "three classes")
    assert (tmp_path / "confusion.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(DataError, match=r"classes must be from 0 to 1, got '0 to 2'"):
        confusion(torch.tensor([2]), torch.tensor([0]), 2)
    with pytest.raises(DataError, match="a name for each of the 3 classes"):
        confusion_csv(counts, ["cat"])
