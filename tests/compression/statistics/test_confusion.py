"""The confusion matrix against a loop, as CSV and as a picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

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


def drawn(counts: torch.Tensor, path: Path, monkeypatch: pytest.MonkeyPatch, **told: Any) -> Figure:
    """The figure that is written, by what stands in it."""
    figures = []

    def written(figure: Figure, content: io.BytesIO, **how: Any) -> None:
        figures.append((figure, how))
        content.write(b"a picture")

    monkeypatch.setattr(Figure, "savefig", written)
    confusion_png(counts, path, **told)
    assert path.read_bytes() == b"a picture"
    ((figure, how),) = figures
    assert how["format"] == "png"
    return figure


def test_a_picture_tells_counts_shares_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = torch.tensor([[6, 4, 0], [0, 0, 0], [2, 0, 8]])
    figure = drawn(counts, tmp_path / "c.png", monkeypatch, classes=["a", "bb", "c"], title="three")
    axes, bar = figure.axes
    (image,) = axes.images
    assert image.get_array().tolist() == [[0.6, 0.4, 0.0], [0.0, 0.0, 0.0], [0.2, 0.0, 0.8]]
    assert (image.norm.vmin, image.norm.vmax) == (0.0, 1.0)
    told = {text.get_position(): (text.get_text(), text.get_color()) for text in axes.texts}
    assert told == {
        (0, 0): ("6", "white"), (1, 0): ("4", "#222222"), (0, 2): ("2", "#222222"), (2, 2): ("8", "white"),
    }  # fmt: skip
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("predicted", "actual", "three")
    assert bar.get_ylabel() == "share of the actual class"
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["a", "bb", "c"]
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {0.0}
    assert figure.get_size_inches().tolist() == pytest.approx([3.6, 3.2])


@pytest.mark.parametrize(
    ("classes", "side", "texts", "ticks", "turned"),
    [(30, 14.0, 30, 30, 0.0), (31, 14.42, 0, 31, 0.0), (60, 16.0, 0, 60, 0.0), (101, 16.0, 0, 0, 0.0)],
)
def test_many_classes_have_fewer_words(
    classes: int, side: float, texts: int, ticks: int, turned: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawn(torch.eye(classes).long(), tmp_path / "c.png", monkeypatch)
    axes = figure.axes[0]
    assert len(axes.texts) == texts
    assert figure.get_size_inches().tolist() == pytest.approx([side + 0.4, side])
    if ticks:
        assert [label.get_text() for label in axes.get_yticklabels()] == [str(index) for index in range(classes)]
        assert {label.get_rotation() for label in axes.get_xticklabels()} == {turned}
    assert axes.get_title() == ""


def test_long_names_stand_upright_and_classes_beyond_the_last_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = drawn(torch.eye(2).long(), tmp_path / "c.png", monkeypatch, classes=["cat", "a"]).axes[0]
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {90.0}
    for predicted, label, said in ((2, 0, "0 to 2"), (0, 2, "0 to 2"), (-1, 1, "-1 to 1"), (1, -1, "-1 to 1")):
        with pytest.raises(DataError, match=f"classes must be from 0 to 1, got '{said}'"):
            confusion(torch.tensor([predicted]), torch.tensor([label]), 2)
    none = torch.zeros(0, dtype=torch.long)
    assert confusion(none, none, 2).tolist() == [[0, 0], [0, 0]]
    assert confusion(torch.tensor([0]), torch.tensor([1]), 2).tolist() == [[0, 0], [1, 0]]
