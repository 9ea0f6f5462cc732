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


def test_what_pruning_single_weights_cannot_change_is_said() -> None:
    from raydistill.search import Objective, front_rows
    from tests.search.test_pick import record as made

    macs = (Objective("top1", "max"), Objective("macs", "min"))
    fine = [made(BASELINE, 0.9, 0.0, 1000), made("t0000", 0.9, 0.5, 1000), made("t0001", 0.8, 0.9, 995)]
    (line,) = tables.unmoved_lines(front_rows(fine, macs))
    assert line.startswith("macs is about the dense network's in every trial")
    structured = [*fine, made("t0002", 0.8, 0.5, 700)]
    assert tables.unmoved_lines(front_rows(structured, macs)) == []
    other = (Objective("top1", "max"), Objective("sparsity", "max"))
    assert tables.unmoved_lines(front_rows(fine, other)) == []
    assert tables.unmoved_lines(front_rows(fine[:1], macs)) == []
    assert tables.unmoved_lines([]) == []


def test_a_latency_has_its_spread_and_a_mark_where_the_machine_was_busy() -> None:
    from raydistill.search import Objective, front_rows

    objectives = (Objective("top1", "max"), Objective("latency_ms", "min"))

    def timed(trial_id: str, top1: float, **footprint: float) -> TrialRecord:
        figures = {"top1": top1, "loss": 1.0}
        last = EpochMetrics(0, 1, 0.1, figures, 0.1, 0.5, {}, 1.0, 1.0, 0, footprint=footprint)
        return replace(record(trial_id, FINISHED), last=last)

    calm = timed("t0", 0.5, latency_ms=0.375, latency_iqr_ms=0.02, latency_busy=0.0)
    busy = timed("t1", 0.7, latency_ms=448.0, latency_iqr_ms=60.0, latency_busy=1.0)
    older = timed("t2", 0.9, latency_ms=500.0)
    rows = front_rows([calm, busy, older], objectives)
    _, table = tables.front_report(rows, "data", METRICS)
    lines = {line[0]: " ".join(line) for line in shown(table)}
    assert "0.375 ± 0.01 " in lines["t0"] + " "
    assert "448 ± 30*" in lines["t1"]
    assert "500" in lines["t2"]
    assert "±" not in lines["t2"]
    assert tables.busy_lines(rows) == ["* the machine was busy, or times varied much, while a latency was measured"]
    assert tables.busy_lines(front_rows([calm, older], objectives)) == []
    others = (Objective("top1", "max"), Objective("sparsity", "max"))
    assert tables.busy_lines(front_rows([calm, busy], others)) == []
