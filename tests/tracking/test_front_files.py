"""All of them, whole: see test_figures.py for what is in the picture, test_front_page.py for the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydistill.search import front_rows
from raydistill.tracking.front_files import write_front
from tests.search.test_pick import METRICS, OBJECTIVES, RECORDS
from tests.tracking.test_front_page import data_of


@pytest.mark.slow
def test_the_page_knows_the_sweeps_name(tmp_path: Path) -> None:
    rows = front_rows(list(RECORDS.values()), OBJECTIVES, ())
    table, picture, page = write_front(rows, OBJECTIVES, METRICS, tmp_path, "tiny")
    assert table.read_text().startswith("trial_id,pareto,")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert data_of(page)["name"] == "tiny"
