"""The notebook runs from top to bottom, and its curves are those of the paper's formula."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PROBE = """
import json
cases = [{}, {"frequency": 10}, {"initial": 0.0, "final": 0.5, "start": 3, "end": 9, "frequency": 2}]
print(json.dumps([curve(**case) for case in cases]))
"""


def text_of(cell: nbformat.NotebookNode) -> str:
    return "".join(output["text"] for output in cell.get("outputs", ()) if output["output_type"] == "stream")


def pictures(cells: list[nbformat.NotebookNode]) -> int:
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", ()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning")
def test_it_runs_and_shows_what_the_file_shows(root: Path) -> None:
    stored = nbformat.read(root / "notebooks" / "agp_schedule.ipynb", as_version=4)
    fresh = nbformat.from_dict({**stored, "cells": [*stored.cells, nbformat.v4.new_code_cell(PROBE)]})
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    stored = nbformat.read(root / "notebooks" / "agp_schedule.ipynb", as_version=4)
    folder = {"metadata": {"path": str(root / "notebooks")}}
    NotebookClient(fresh, timeout=120, kernel_name="python3", resources=folder).execute()

    assert pictures(fresh.cells) == pictures(stored.cells) == 3
    for now, then in zip(fresh.cells, stored.cells, strict=False):
        assert text_of(now) == text_of(then)

    default, coarse, short = json.loads(text_of(fresh.cells[-1]))
    assert default[0] == list(range(0, 41, 2))
    # 0.8 - 0.75 (1 - t / 40)^3 at t = 0, 20 and 40
    assert [default[1][index] for index in (0, 10, 20)] == pytest.approx([0.05, 0.8 - 0.75 / 8, 0.8])
    assert coarse[1] == pytest.approx([0.05, 0.8 - 0.75 * 27 / 64, 0.8 - 0.75 / 8, 0.8 - 0.75 / 64, 0.8])
    # epochs 3, 5 and 7 of a span of 4: nothing, 7/8 and all of the way
    assert short == [[3, 5, 7], pytest.approx([0.0, 0.4375, 0.5])]
