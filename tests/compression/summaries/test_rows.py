"""Rows as CSV, read back by Python's own reader."""

from __future__ import annotations

import csv
from dataclasses import dataclass

from raydistill.compression.summaries.rows import columns, csv_text, shape_text


@dataclass(frozen=True)
class Row:
    name: str
    shape: tuple[int, ...]
    share: float | None


def test_a_reader_finds_what_was_written() -> None:
    rows = [Row('a "quoted", name', (16, 3, 3), 0.25), Row("", (), None)]
    text = csv_text(Row, rows)
    assert list(csv.DictReader(text.splitlines())) == [
        {"name": 'a "quoted", name', "shape": "16x3x3", "share": "0.25"},
        {"name": "", "shape": "", "share": ""},
    ]
    assert "\r" not in text
    assert csv_text(Row, []) == "name,shape,share\n"
    assert columns(Row) == ("name", "shape", "share")
    assert shape_text((2,)) == "2"
