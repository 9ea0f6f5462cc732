"""Tables about a model."""

from __future__ import annotations

import csv
import io

from torch import nn

from raydistill.compression.sparsity import from_counts, weights, zero_counts

SPARSITY_COLUMNS = ("weight", "shape", "dense", "nonzero", "sparsity")


def sparsity_rows(model: nn.Module) -> list[tuple[str, str, int, int, float]]:
    """One row a weight (name, shape, size, nonzero count, sparsity) and a last one in total."""
    counts = zero_counts(model)
    total, by_layer = from_counts(counts)
    rows = []
    for name, weight in weights(model):
        zeros, size = counts[name]
        rows.append((name, "x".join(map(str, weight.shape)), size, size - zeros, by_layer[name]))
    size = sum(row[2] for row in rows)
    return [*rows, ("total", "", size, sum(row[3] for row in rows), total)]


def sparsity_csv(model: nn.Module) -> str:
    """`sparsity_rows` as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SPARSITY_COLUMNS)
    writer.writerows(sparsity_rows(model))
    return text.getvalue()
