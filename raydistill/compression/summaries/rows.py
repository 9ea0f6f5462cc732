"""Rows are frozen dataclasses; this turns any sequence of one kind into CSV text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import fields


def columns(row_type: type) -> tuple[str, ...]:
    """The column names of a kind of row."""
    return tuple(f.name for f in fields(row_type))


def csv_text(row_type: type, rows: Sequence[object]) -> str:
    """CSV with a header line; shapes as ``16x3x3x3``, cells that do not apply empty, lines end in a newline."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = columns(row_type)
    writer.writerow(names)
    writer.writerows([_cell(getattr(row, name)) for name in names] for row in rows)
    return text.getvalue()


def shape_text(shape: Sequence[int]) -> str:
    """``16x3x3x3``; empty for a scalar."""
    return "x".join(map(str, shape))


def _cell(value: object) -> object:
    return shape_text(value) if isinstance(value, tuple) else value
