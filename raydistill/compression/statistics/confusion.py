"""Which classes a network takes for which: counts[actual, predicted]."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from raydistill.errors import DataError, Fault
from raydistill.files import write_atomically


class ConfusionMatrix:
    """Counts predictions over batches, on the device where they are, without waiting for it.

    counts: int64 (classes, classes), row the label, column the prediction.
    """

    def __init__(self, num_classes: int) -> None:
        self._classes = num_classes
        self._counts: Tensor | None = None

    @property
    def counts(self) -> Tensor:
        if self._counts is None:
            return torch.zeros(self._classes, self._classes, dtype=torch.int64)
        return self._counts.cpu()

    @torch.no_grad()
    def update(self, outputs: Tensor, labels: Tensor) -> None:
        """outputs: logits (B, classes) or predicted classes (B,). labels: (B,)."""
        predicted = outputs.argmax(dim=1) if outputs.dim() == 2 else outputs
        counts = confusion(predicted, labels, self._classes)
        self._counts = counts if self._counts is None else self._counts + counts


def confusion(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Counts of pairs of classes, int64 (classes, classes), row the label, column the prediction.

    Raises:
        DataError: a class below 0 or not below `num_classes` (looked at on the CPU only, a GPU is not waited for).
    """
    pairs = labels.long() * num_classes + predicted.long()
    if pairs.device.type == "cpu" and pairs.numel():
        low, high = min(labels.min(), predicted.min()), max(labels.max(), predicted.max())
        if low < 0 or high >= num_classes:
            rule = f"classes must be from 0 to {num_classes - 1}"
            raise DataError(Fault("confusion matrix", rule, f"{int(low)} to {int(high)}"))
    return torch.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def confusion_csv(counts: Tensor, classes: Sequence[str] | None = None) -> str:
    """A line a label, a column a prediction, and how much of the label's images was right (recall)."""
    names = _names(counts, classes)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["actual", *names, "recall"])
    for index, (name, row) in enumerate(zip(names, counts.tolist(), strict=True)):
        writer.writerow([name, *row, row[index] / sum(row) if sum(row) else ""])
    return text.getvalue()


def confusion_png(counts: Tensor, path: str | Path, classes: Sequence[str] | None = None, title: str = "") -> None:
    """Draw the matrix: colour is the share of the label's images, figures are counts (up to 30 classes).

    Raises:
        StorageError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    names, size = _names(counts, classes), len(counts)
    shares = counts.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)
    side = min(max(3.2, 0.42 * size + 1.4), 16.0)
    figure = Figure(figsize=(side + 0.4, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the actual class")
    if size <= 60:
        axes.set_xticks(range(size), names, rotation=90 if max(map(len, names)) > 2 else 0, fontsize=8)
        axes.set_yticks(range(size), names, fontsize=8)
    if size <= 30:
        for row in range(size):
            for column in range(size):
                count = int(counts[row, column])
                if count:
                    colour = "white" if shares[row, column] > 0.55 else "#222222"
                    axes.text(column, row, f"{count}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    if title:
        axes.set_title(title, fontsize=10)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_atomically(path, content.getvalue())


def _names(counts: Tensor, classes: Sequence[str] | None) -> list[str]:
    names = [str(index) for index in range(len(counts))] if classes is None else [str(name) for name in classes]
    if len(names) != len(counts):
        rule = f"needs a name for each of the {len(counts)} classes"
        raise DataError(Fault("confusion matrix", rule, len(names)))
    return names
