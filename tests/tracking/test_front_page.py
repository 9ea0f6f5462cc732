"""The page of the front: its data by hand, and what it does in a browser."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raydistill.records import BASELINE, TrialRecord
from raydistill.search import Objective, front_rows
from raydistill.tracking.front_page import front_html, importance, page_data
from tests.search.test_pick import METRICS, OBJECTIVES, RECORDS, record

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def data_of(page: Path) -> Any:
    """The data in a page, as its script reads them."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def searched() -> list[TrialRecord]:
    """Six trials: sparsity follows a, loss of top1 follows b; c is a choice that decides nothing."""
    found = [record(BASELINE, 0.9, 0.0, 100)]
    for number in range(6):
        a, b = number / 5, (number * 2 % 6 + number // 3) / 5
        values = {"a": a, "b": b, "c": "xy"[number % 2]}
        found.append(replace(record(f"t{number:04d}", 0.9 - 0.1 * b, 0.5 + 0.08 * number, 50), values=values))
    return found


def test_rows_say_all_there_is() -> None:
    rows = front_rows(list(RECORDS.values()), OBJECTIVES, ())
    data = page_data(rows, OBJECTIVES, METRICS, "title", "tiny")
    assert data["axes"] == ["sparsity", "top1"]
    assert [figure["name"] for figure in data["figures"]] == ["sparsity", "top1", "loss", "macs"]
    assert data["figures"][1]["label"] == "validation top1 (digits)"
    found = {row["id"]: row for row in data["rows"]}
    assert set(found) == {BASELINE, "t0000", "t0001", "t0002", "t0003"}
    assert (found["t0002"]["knee"], found["t0002"]["pareto"], found[BASELINE]["dense"]) == (True, True, True)
    assert found["t0000"]["seeds"] == 2
    assert found["t0001"]["figures"] == {"sparsity": 0.7, "top1": 0.899, "loss": pytest.approx(0.101), "macs": 60}
    assert found["t0001"]["lines"] == ["top1: 89.90 %", "sparsity: 70.00 %", "macs: 60"]
    assert found["t0001"]["test"] is None


def test_figures_that_are_no_numbers_are_null(tmp_path: Path) -> None:
    odd = record("t0000", float("nan"), 0.5, float("inf"))
    rows = front_rows([RECORDS[BASELINE], odd], OBJECTIVES, ())
    front_html(rows, OBJECTIVES, METRICS, tmp_path / "page.html", "title")
    found = {row["id"]: row["figures"] for row in data_of(tmp_path / "page.html")["rows"]}
    assert (found["t0000"]["top1"], found["t0000"]["macs"]) == (None, None)


def test_what_a_user_writes_is_no_html(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    rows = front_rows([replace(record("t0000", 0.9, 0.5, 1), values={evil: evil})], OBJECTIVES, ())
    path = tmp_path / "page.html"
    front_html(rows, OBJECTIVES, METRICS, path, f"<b>{evil}", evil)
    text = path.read_text()
    assert text.count("<script") == 2
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)  # it needs no network
    assert data_of(path)["rows"][0]["values"] == {evil: evil}
    assert len(text) < 60_000


def test_importance_by_hand() -> None:
    rows = [row for row in front_rows(searched(), OBJECTIVES, ()) if row.record.trial_id != BASELINE]
    found = importance(rows, ["a", "b", "c", "nowhere"], "sparsity")
    assert found["a"] == pytest.approx(1.0)
    assert found["c"] == pytest.approx((1.5 / 17.5) ** 0.5 * 1.0, abs=1e-6)  # ranks 1 3 5 and 2 4 6
    assert importance(rows, ["b"], "top1")["b"] == pytest.approx(1.0)
    assert "nowhere" not in found
    assert importance(rows[:4], ["a"], "sparsity") == {}


def test_importance_of_what_says_nothing() -> None:
    """Of five trials something is said; of values or figures that are all alike, or not known, nothing."""
    records = searched()
    rows = [row for row in front_rows(records, OBJECTIVES, ()) if row.record.trial_id != BASELINE]
    rows.sort(key=lambda row: row.record.trial_id)
    assert importance(rows[:5], ["a"], "sparsity")["a"] == pytest.approx(1.0)
    falling = importance(rows, ["a"], "loss")["a"]
    assert 0.0 < falling < 1.0
    assert importance(rows, ["b"], "loss")["b"] == pytest.approx(1.0)  # the size of it, whatever its sign
    assert importance(rows, ["a"], "macs") == {}  # all have 50
    assert importance(rows, ["a"], "latency_ms") == {}
    mixed = [
        replace(each, values={"a": 1.0, "on": number % 2 == 0, "mixed": 3 if number else "x"})
        for number, each in enumerate(records[1:])
    ]
    same = front_rows(mixed, OBJECTIVES, ())
    found = importance(same, ["a", "on", "mixed"], "sparsity")
    assert set(found) == {"on", "mixed"}
    assert found["on"] == pytest.approx((1.5 / 17.5) ** 0.5)  # true and false are no numbers
    assert found["mixed"] == pytest.approx((2.5**2 * (1 + 1 / 5) / 17.5) ** 0.5)  # the lowest against all others


def test_costs_are_told_in_their_units_and_once() -> None:
    last = record("t0000", 0.9, 0.5, 1_234_567).last
    assert last is not None
    last = replace(last, footprint={"macs": 1_234_567.0, "latency_ms": 1.25, "odd": 2.5, "top1": 0.9})
    rows = front_rows([replace(RECORDS[BASELINE]), replace(record("t0000", 0.9, 0.5, 1), last=last)], OBJECTIVES, ())
    lines = next(row for row in page_data(rows, OBJECTIVES, METRICS, "t", "n")["rows"] if row["id"] == "t0000")["lines"]  # type: ignore[attr-defined]
    assert lines[:3] == ["top1: 90.00 %", "sparsity: 50.00 %", "macs: 1,234,567"]
    assert lines[3].startswith("latency_ms: 1.25")
    assert lines[4:] == ["odd: 2.5"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_in_a_browser(tmp_path: Path) -> None:
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    rows = front_rows(searched(), OBJECTIVES, ())
    front_html(rows, OBJECTIVES, METRICS, tmp_path / "page.html", "six trials", "tiny")
    empty = front_rows([], OBJECTIVES, ())
    front_html(empty, OBJECTIVES, METRICS, tmp_path / "empty.html", "none")
    counted = (*OBJECTIVES, Objective("macs", "min"))
    front_html(front_rows(searched(), counted, ()), counted, METRICS, tmp_path / "three.html", "three", "tiny")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        assert page.locator("#plot circle.point").count() == 7
        assert page.locator("#parallel path.line").count() == 6
        assert page.locator("#importance rect").count() == 3
        page.locator('#plot circle.point[data-id="t0004"]').click(force=True)
        told = page.locator("#detail").inner_text()
        assert told.startswith("t0004")
        assert "raydistill pick tiny --trial t0004" in told
        page.locator('#parallel path.line[data-id="t0001"]').dispatch_event("click")
        assert page.locator("#detail b").inner_text() == "t0001"
        page.select_option("#y", "loss")
        assert "loss" in str(page.locator("#plot").text_content())
        page.select_option("#colour", "macs")
        assert page.locator("#plot circle.point").count() == 7
        page.goto((tmp_path / "empty.html").as_uri())
        assert "no finished trial yet" in str(page.locator("#plot").text_content())
        page.goto((tmp_path / "three.html").as_uri())
        assert page.locator("#colour").input_value() == "macs"
        browser.close()
    assert wrong == []
