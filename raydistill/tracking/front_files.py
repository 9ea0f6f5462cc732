"""The front as files: a table, a picture, a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from raydistill.files import write_atomically
from raydistill.metrics import Metric
from raydistill.tracking.figures import FrontRow, Objective, front_png, front_table, front_title
from raydistill.tracking.front_page import front_html


def write_front(
    rows: Sequence[FrontRow],
    objectives: Sequence[Objective],
    metrics: Mapping[str, Metric],
    folder: Path,
    name: str,
) -> list[Path]:
    """pareto.csv, pareto.png and pareto.html in `folder`, each whole or not at all.

    Raises:
        StorageError: one cannot be written.
    """
    table, picture, page = folder / "pareto.csv", folder / "pareto.png", folder / "pareto.html"
    title = front_title(rows, name)
    write_atomically(table, front_table(rows, metrics).to_csv(index=False, float_format="%.6g").encode())
    front_png(rows, objectives, metrics, picture, title)
    front_html(rows, objectives, metrics, page, title, name)
    return [table, picture, page]
