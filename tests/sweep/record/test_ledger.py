"""What happens stands in the journal first, and comes back from it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from raydistill.records import BASELINE, FAILED, FINISHED, PAUSED, RUNNING, Evaluation, TrialRecord
from raydistill.sweep.record.journal import read_journal
from raydistill.sweep.record.ledger import files_of
from tests.sweep.sessions import epoch, finished, ledger_in

TEST = Evaluation("test", {"top1": 0.4}, 10)


def test_a_journal_that_is_read_back_gives_the_records_that_were_kept(tmp_path: Path) -> None:
    ledger, log, observer = ledger_in(tmp_path)
    ledger.baseline(finished(BASELINE, 0.9, 0.0, str(tmp_path / "b.pt")), [epoch(0)])
    for number in range(2):
        ledger.started(TrialRecord(f"t{number}", {"x": 0.5}, RUNNING, "a", "d", 0, epochs=4))
        ledger.epoch(f"t{number}", epoch(0, checkpoint=str(tmp_path / f"t{number}.pt")))
    ledger.paused("t0", "waits")
    assert [record.trial_id for record in ledger.running()] == ["t1"]
    ledger.ended("t1", FINISHED, "done")
    ledger.tested("t1", TEST)
    states = {trial_id: (record.state, record.reason) for trial_id, record in ledger.records.items()}
    assert states == {BASELINE: (FINISHED, ""), "t0": (PAUSED, "waits"), "t1": (FINISHED, "done")}
    again, _, _ = ledger_in(tmp_path)
    # times are those of the lines
    assert {k: v for k, v in again.records.items() if k != "t1"} == {
        k: v for k, v in ledger.records.items() if k != "t1"
    }
    assert again.records["t1"].test == TEST
    assert {row.record.trial_id for row in ledger.front()} == {BASELINE, "t1"}
    assert observer.fronts[0] == [BASELINE]
    assert log.told[:3] == [("started", BASELINE, FINISHED), ("epoch", BASELINE, 0), ("ended", BASELINE, FINISHED,
        str(tmp_path / "b.pt"), f"{tmp_path}/schedule.yaml", f"{tmp_path}/sparsity.csv")]  # fmt: skip


def test_whoever_watches_sees_each_step_of_a_trial(tmp_path: Path) -> None:
    ledger, _, observer = ledger_in(tmp_path)
    ledger.started(TrialRecord("t0", {}, RUNNING, "a", "d", 0))
    ledger.epoch("t0", epoch(0))
    ledger.paused("t0", "waits")
    ledger.started(replace(ledger.records["t0"], state=RUNNING))
    ledger.ended("t0", FINISHED, "done")
    assert observer.trials == [
        ("t0", RUNNING, None), ("t0", RUNNING, 0), ("t0", PAUSED, 0), ("t0", RUNNING, 0), ("t0", FINISHED, 0),
    ]  # fmt: skip


def test_an_epoch_that_is_known_is_passed_over(tmp_path: Path) -> None:
    ledger, log, _ = ledger_in(tmp_path)
    ledger.started(TrialRecord("t0", {}, RUNNING, "a", "d", 0))
    for number in (0, 1, 0, 1, 2):
        ledger.epoch("t0", epoch(number, top1=0.1 * number))
    assert [entry[2] for entry in log.told if entry[0] == "epoch"] == [0, 1, 2]
    assert len(read_journal(tmp_path / "journal.jsonl").epochs) == 3


def test_a_baseline_that_is_trained_again_to_the_same_figures_is_told_once(tmp_path: Path) -> None:
    ledger, _, _ = ledger_in(tmp_path)
    first = finished(BASELINE, 0.9, 0.0, str(tmp_path / "b.pt"))
    ledger.baseline(first, [epoch(number, checkpoint=str(tmp_path / "b.pt")) for number in range(4)])
    ledger.tested(BASELINE, TEST)
    resumed, log, _ = ledger_in(tmp_path)
    assert first.last is not None
    later = replace(first, last=replace(first.last, timestamp_ms=99_000, seconds=7.0))
    resumed.baseline(later, [replace(epoch(number), timestamp_ms=99_000) for number in range(4)])
    assert [entry for entry in log.told if entry[0] == "epoch"] == []
    history = read_journal(tmp_path / "journal.jsonl")
    assert [(trial, metrics.epoch) for trial, metrics in history.epochs] == [(BASELINE, number) for number in range(4)]
    assert history.records[BASELINE].test == TEST

    other = finished(BASELINE, 0.8, 0.0, str(tmp_path / "b.pt"))  # as a GPU may train it: another network
    resumed.baseline(other, [epoch(3, top1=0.8)])
    assert [entry[2] for entry in log.told if entry[0] == "epoch"] == [3]
    assert resumed.records[BASELINE].test is None


def test_a_trial_that_starts_again_keeps_what_it_reached(tmp_path: Path) -> None:
    ledger, _, observer = ledger_in(tmp_path)
    ledger.started(TrialRecord("t0", {}, RUNNING, "a", "d", 0, started_ms=5))
    ledger.epoch("t0", epoch(1, checkpoint="c.pt"))
    ledger.retried("t0", "its node was lost")
    ledger.anew("t0", "it was damaged")
    ledger.started(TrialRecord("t0", {}, RUNNING, "a", "d", 0, started_ms=9))
    record = ledger.records["t0"]
    assert (record.last and record.last.epoch, record.checkpoint, record.started_ms) == (1, "c.pt", 5)
    assert observer.warnings == [
        "trial t0 starts again from its last checkpoint: its node was lost",
        "trial t0 starts anew from the baseline: it was damaged",
    ]


def test_what_the_journal_holds_is_sent_again_in_its_order(tmp_path: Path) -> None:
    ledger, _, _ = ledger_in(tmp_path)
    ledger.started(TrialRecord("t0", {}, RUNNING, "a", "d", 0))
    ledger.epoch("t0", epoch(0))
    ledger.ended("t0", FAILED, "why")
    ledger.started(TrialRecord("t1", {}, RUNNING, "a", "d", 0))
    again, log, _ = ledger_in(tmp_path)
    again.resend(read_journal(tmp_path / "journal.jsonl"))
    assert log.told == [
        ("started", "t0", FAILED),
        ("started", "t1", RUNNING),
        ("epoch", "t0", 0),
        ("ended", "t0", FAILED),
    ]
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines][1:] == [
        "trial_started",
        "epoch",
        "trial_ended",
        "trial_started",
    ]


def test_what_a_trial_leaves_behind() -> None:
    assert files_of(finished("t0", 0.5, 0.5)) == []
    assert files_of(finished("t0", 0.5, 0.5, "s3://b/t0/c.pt")) == [
        "s3://b/t0/c.pt", "s3://b/t0/schedule.yaml", "s3://b/t0/sparsity.csv",
    ]  # fmt: skip


def test_what_was_measured_of_the_layers_comes_back(tmp_path: Path) -> None:
    ledger, _, _ = ledger_in(tmp_path)
    rules = {"erk": [{"a.weight": 0.25}, {"a.weight": 0.5}]}
    ledger.measured({"a.weight": [(0.5, 0.1)]}, {"a.weight": 0.7}, {"macs": {"a.weight": -9.0}}, rules)
    again, _, _ = ledger_in(tmp_path)
    for one in (ledger, again):
        assert (one.curves, one.sizes) == ({"a.weight": [(0.5, 0.1)]}, {"a.weight": 0.7})
        assert (one.beside, one.allocations) == ({"macs": {"a.weight": -9.0}}, rules)
    ledger.measured({}, {})
    (*_, last) = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert set(last) == {"event", "time_ms", "curves", "sizes"}  # as journals of before


def test_evidence_comes_back_and_what_is_no_number_stays_none(tmp_path: Path) -> None:
    ledger, _, _ = ledger_in(tmp_path)
    assert ledger.evidence is None
    ledger.judged([0.5, math.nan, 2.0])
    again, _, _ = ledger_in(tmp_path)
    for one in (ledger, again):
        assert one.evidence is not None
        assert [str(loss) for loss in one.evidence] == ["0.5", "nan", "2.0"]
    json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[-1], parse_constant=lambda name: 1 / 0)
