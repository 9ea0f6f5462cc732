"""Tables, as they stand on a terminal of 80 columns."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

from raydistill.cli import tables
from raydistill.metrics import Metric
from raydistill.records import BASELINE, FINISHED, RUNNING, STOPPED, EpochMetrics, TrialRecord

METRICS = {"top1": Metric("max", "fraction"), "loss": Metric("min")}


def shown(table: Table) -> list[list[str]]:
    text = io.StringIO()
    Console(file=text, width=80).print(table)
    return [line.split() for line in text.getvalue().splitlines() if line.strip()]


def record(trial_id: str, state: str, confirms: str = "") -> TrialRecord:
    return TrialRecord(trial_id, {}, state, "net", "data", 0, confirms=confirms)


def test_a_fraction_is_shown_in_percent_and_anything_else_by_four_digits() -> None:
    top1, loss = METRICS.values()
    assert top1.is_fraction
    assert [tables.cell(top1, 0.70125), tables.cell(loss, 0.931249), tables.cell(loss, None)] == ["70.12", "0.9312", ""]
    assert [tables.heading("top1", top1), tables.heading("loss", loss)] == ["top1 %", "loss"]
    assert tables.percent(None) == ""


def test_in_words_says_what_the_task_names() -> None:
    values = {"top1": 0.7, "sparsity": 0.5, "loss": 0.93124}
    assert tables.in_words(values, METRICS) == "top1 70.00 %  loss 0.9312"
    assert tables.first_in_words(values, METRICS) == "top1 70.00 %"


def test_the_last_line_is_the_sparsity_of_all() -> None:
    epoch = EpochMetrics(0, 1, 0.1, {}, 0.1, 0.25, {"a.weight": 0.5, "b.weight": 0.0}, 1.0, 1.0, 0)
    rows = shown(tables.sparsity_table(epoch))
    assert [row for row in rows if len(row) == 2] == [["a.weight", "50.00"], ["b.weight", "0.00"], ["total", "25.00"]]


def test_what_is_searched_by_path() -> None:
    rows = shown(tables.space_table([("training.lr", "uniform(0,1)"), ("x", "choice")]))
    assert ["training.lr", "uniform(0,1)"] in rows
    assert ["x", "choice"] in rows


def test_the_baseline_and_what_repeats_a_trial_are_no_trials() -> None:
    found = [record("t0", FINISHED), record("t1", STOPPED), record("t2", FINISHED), record(BASELINE, FINISHED),
             record("t0-seed1", RUNNING, confirms="t0")]  # fmt: skip
    assert tables.counts({one.trial_id: one for one in found}) == {FINISHED: 2, STOPPED: 1}
    again = replace(found[4], confirms="")
    assert tables.counts({"x": again}) == {RUNNING: 1}


@pytest.mark.parametrize(("value", "text"), [(1.2345e9, "1.23 G"), (2e6, "2 M"), (45_600, "45.6 k"), (0.789, "0.789")])
def test_three_digits_that_mean_something(value: float, text: str) -> None:
    assert tables.amount(value) == text
