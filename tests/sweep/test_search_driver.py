"""The search driver without Ray: a journal brings it back to where it was; what goes wrong with one trial is said."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from raydistill.errors import StorageError
from raydistill.records import FAILED, FINISHED, PAUSED, RUNNING, STOPPED, EpochMetrics, Scalar, TrialRecord
from raydistill.search import Objective
from raydistill.search.decisions import by_objectives
from raydistill.search.halving import Halving
from raydistill.search.search import Search
from raydistill.search.searchers import EvolutionSearcher
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import Plan, TrialPlan, plan_sweep
from raydistill.sweep.record.journal import FORMAT, Journal, read_journal
from raydistill.sweep.record.ledger import Ledger
from raydistill.sweep.record.observer import Observer
from raydistill.sweep.search_driver import Leg, SearchDriver
from raydistill.sweep.trial.trainable import EPOCH, FAILURE, FATAL
from raydistill.sweep.tune.interrupt import Interrupt
from raydistill.tasks.classification import ImageShape
from raydistill.tasks.classification.metrics import METRICS
from raydistill.tracking import SweepLog

CIFAR = ImageShape(10, (3, 32, 32))

OBJECTIVES = (Objective("top1", "max"), Objective("sparsity", "max"))
EPOCHS, TRIALS, WORKERS = 4, 6, 2
REFUSED = {"pruners.agp.final_sparsity": 1.5}
"""A warm start outside the bounds that no pruner takes."""


class Untracked(SweepLog):
    """MLflow is not what is tested here."""

    def trial_started(self, record: TrialRecord) -> None: ...

    def epoch(self, trial_id: str, metrics: EpochMetrics) -> None: ...

    def trial_ended(self, record: TrialRecord, artifacts: Sequence[Path] = ()) -> None: ...

    def front(self, *arguments: Any) -> None: ...


@pytest.fixture
def plan(write_sweep: Callable[..., Path]) -> Plan:
    search = {"pruners.agp.final_sparsity": {"uniform": [0.3, 0.95]}}
    return plan_sweep(load_sweep(write_sweep(("search", search), ("num_samples", 1))), CIFAR)


PLANS: dict[str, TrialPlan] = {}


class Sweeping:
    """A search driver, its journal, and workers that train by a formula: `run` until the journal has so many lines."""

    def __init__(
        self,
        plan: Plan,
        path: Path,
        promote: bool,
        fixed: Sequence[Mapping[str, Scalar]] = (),
        dies: Mapping[str, int] | None = None,
    ) -> None:
        """dies: the epoch in which a trial fails."""
        self.dies = dies or {}
        history = read_journal(path)
        self.path, self.journal = path, Journal(path)
        if history.start is None:
            self.journal.append("sweep_started", format=FORMAT, sweep_id="s", config={}, dataset={})
        log = Untracked(None, path.parent, "s", "s")
        self.ledger = Ledger(self.journal, history, log, Observer(), OBJECTIVES, METRICS)
        measure = by_objectives(OBJECTIVES)
        trial_scheduler = Halving(measure, max_epochs=EPOCHS, grace_period=1, reduction_factor=2, promote=promote)
        searcher = EvolutionSearcher(plan.space, seed=5, startup=3)
        search = Search(searcher, trial_scheduler, measure, num_samples=TRIALS, stages=[1, 2, EPOCHS], fixed=fixed)
        self.interrupt = Interrupt()

        def draw(number: int, values: Mapping[str, Scalar]) -> TrialPlan:
            key = f"{number} {values}"
            if key not in PLANS:
                PLANS[key] = plan.draw(number, values)
            return PLANS[key]

        def record(number: int, values: Mapping[str, Scalar], made: TrialPlan | None) -> TrialRecord:
            planned = made.planned_sparsity if made is not None else 0.0
            return TrialRecord(
                f"t{number:04d}", dict(values), RUNNING, "a", "d", 0, planned_sparsity=planned, epochs=EPOCHS
            )

        self.search_driver = SearchDriver(search, self.ledger, draw, record, self.interrupt)
        self.search_driver.replay(history)
        self.legs: list[tuple[str, int, int | None]] = []
        self.at: dict[str, int] = {}
        self.until: dict[str, int | None] = {}

    def run(self) -> None:
        """Workers take turns, an epoch each."""
        while True:
            while len(self.at) < WORKERS and (leg := self.search_driver.next_leg()) is not None:
                self.start(leg)
            if not self.at:
                break
            for trial_id in list(self.at):
                self.epoch(trial_id)
        self.search_driver.close()
        self.journal.close()

    def start(self, leg: Leg) -> None:
        trial_id = leg.plan.trial_id
        assert trial_id not in self.at
        self.legs.append((trial_id, leg.known, leg.until))
        self.at[trial_id], self.until[trial_id] = leg.known, leg.until

    def epoch(self, trial_id: str) -> None:
        dead = self.at[trial_id] == self.dies.get(trial_id)
        told = {FAILURE: "of its own making"} if dead else report(trial_id, self.at[trial_id])
        go_on = self.search_driver.report(trial_id, told)
        self.at[trial_id] += 1
        if not go_on or self.at[trial_id] in (self.until[trial_id], EPOCHS):
            del self.at[trial_id]
            self.search_driver.completed(trial_id)

    def ends(self) -> dict[str, tuple]:
        return {
            key: (r.state, r.reason, r.last and r.last.epoch, dict(r.values)) for key, r in self.ledger.records.items()
        }


def report(trial_id: str, epoch: int) -> dict[str, str]:
    """top1 grows with epochs; which trial is better is as good as random, and the same whenever it is asked."""
    number = int(trial_id[1:])
    top1 = 0.3 + 0.1 * epoch + 0.3 * abs(math.sin(7.0 * number + 1))
    metrics = EpochMetrics(
        epoch, EPOCHS, 1.5, {"top1": top1, "top5": 0.9, "loss": 1.0}, 0.1, 0.3, {}, 1e3, 0.5, 1_000 + epoch
    )
    return {EPOCH: json.dumps(metrics.to_json())}


def told(path: Path) -> list[tuple]:
    """What the journal says of epochs and ends, without times."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["event"], line["trial_id"], line.get("state"), line.get("metrics")) for line in lines
            if line["event"] in ("epoch", "trial_paused", "trial_ended")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dies", [{}, {"t0000": 1, "t0005": 1}, {"t0001": 2}], ids=["", "at epoch 1", "at epoch 2"])
@pytest.mark.parametrize("promote", [False, True])
def test_cut_at_any_event_a_sweep_goes_on_as_if_it_had_never_stopped(
    plan: Plan, tmp_path: Path, promote: bool, dies: dict[str, int]
) -> None:
    """One worker at a time (see below); the third trial is refused by the pruner, others die after they went on."""
    fixed = [{"pruners.agp.final_sparsity": value} for value in (0.6, 0.7)] + [REFUSED]
    whole = Sweeping(plan, tmp_path / "whole.jsonl", promote, fixed, dies)
    one_at_a_time(whole)
    ends = whole.ends()
    assert len(ends) == TRIALS
    assert ends["t0002"][0] == FAILED
    assert {end[0] for end in ends.values()} == {FAILED, STOPPED, FINISHED}
    lines = whole.path.read_bytes().splitlines(keepends=True)
    for cut in range(1, len(lines)):
        path = tmp_path / f"cut{cut}.jsonl"
        path.write_bytes(b"".join(lines[:cut]))
        again = Sweeping(plan, path, promote, fixed, dies)
        one_at_a_time(again)
        assert again.ends() == ends, cut
        assert sorted(told(path), key=str) == sorted(told(whole.path), key=str), cut
        started = [leg for leg in whole.legs if leg[2] is None or leg[1] < leg[2]]
        assert set(again.legs[1:]) <= set(started), cut  # the first may be what was cut off within a leg


def one_at_a_time(sweeping: Sweeping) -> None:
    while (leg := sweeping.search_driver.next_leg()) is not None:
        sweeping.start(leg)
        while sweeping.at:
            sweeping.epoch(leg.plan.trial_id)
    assert sweeping.search_driver.done
    assert sweeping.search_driver.fatal is None
    sweeping.search_driver.close()
    sweeping.journal.close()


@pytest.mark.slow
def test_with_several_workers_every_trial_ends_wherever_it_is_cut(plan: Plan, tmp_path: Path) -> None:
    """The order of arrivals may differ, so ends may; nothing is lost and no epoch is told twice."""
    whole = Sweeping(plan, tmp_path / "whole.jsonl", promote=True)
    whole.run()
    lines = whole.path.read_bytes().splitlines(keepends=True)
    for cut in range(1, len(lines), 2):
        path = tmp_path / f"cut{cut}.jsonl"
        path.write_bytes(b"".join(lines[:cut]))
        before = read_journal(path)
        again = Sweeping(plan, path, promote=True)
        running = [key for key, r in again.ledger.records.items() if r.state == RUNNING]
        again.run()
        assert [leg[0] for leg in again.legs[: len(running)]] == sorted(running), cut  # those that ran come first
        ends = again.ends()
        assert len(ends) == TRIALS
        assert {end[0] for end in ends.values()} <= {STOPPED, FINISHED}
        epochs = [(trial_id, metrics["epoch"]) for event, trial_id, _, metrics in told(path) if event == "epoch"]
        assert len(set(epochs)) == len(epochs), cut
        for key, record in before.records.items():
            assert ends[key][3] == dict(record.values)


def test_a_promoted_leg_goes_on_from_its_rung(plan: Plan, tmp_path: Path) -> None:
    sweeping = Sweeping(plan, tmp_path / "j.jsonl", promote=True)
    one_at_a_time(sweeping)
    finished = [key for key, record in sweeping.ledger.records.items() if record.state == FINISHED]
    assert finished
    for trial_id in finished:  # rungs at epochs 1 and 2
        assert [leg[1:] for leg in sweeping.legs if leg[0] == trial_id] == [(0, 1), (1, 2), (2, None)]
    stopped = [record for record in sweeping.ledger.records.values() if record.state == STOPPED]
    assert all("go on from the rung at epoch" in record.reason for record in stopped)


def test_a_promoted_trial_that_dies_is_replaced_in_its_rung(plan: Plan, tmp_path: Path) -> None:
    """As many trials as without it come to the end, and one that would have been left at its rung is among them."""
    whole, shot = (Sweeping(plan, tmp_path / f"{name}.jsonl", promote=True) for name in ("whole", "shot"))
    one_at_a_time(whole)
    promoted = [leg[0] for leg in whole.legs if leg[1:] == (1, 2)]
    shot.dies = {promoted[0]: 1}
    one_at_a_time(shot)
    instead = {leg[0] for leg in shot.legs if leg[1:] == (1, 2)}
    assert shot.ledger.records[promoted[0]].state == FAILED
    assert len(instead - {promoted[0]}) == len(promoted)


def test_refused_values_end_one_trial_in_one_line(plan: Plan, tmp_path: Path) -> None:
    sweeping = Sweeping(plan, tmp_path / "j.jsonl", promote=False, fixed=[REFUSED])
    one_at_a_time(sweeping)
    record = sweeping.ledger.records["t0000"]
    assert (record.state, record.values) == (FAILED, REFUSED)
    assert "final_sparsity" in record.reason
    assert "1.5" in record.reason
    assert "\n" not in record.reason
    assert "t0000" not in {leg[0] for leg in sweeping.legs}
    assert len(sweeping.ledger.records) == TRIALS


def test_a_failure_ends_its_trial_only(plan: Plan, tmp_path: Path) -> None:
    sweeping = Sweeping(plan, tmp_path / "j.jsonl", promote=False)
    leg = sweeping.search_driver.next_leg()
    assert leg is not None
    assert not sweeping.search_driver.report("t0000", {FAILURE: "loss is not finite"})
    sweeping.search_driver.completed("t0000")
    assert sweeping.ledger.records["t0000"].state == FAILED
    assert sweeping.ledger.records["t0000"].reason == "loss is not finite"
    one_at_a_time(sweeping)
    assert [record.state for record in sweeping.ledger.records.values()].count(FAILED) == 1


def test_a_process_that_died_at_its_rung_pauses_when_it_is_tried_again(plan: Plan, tmp_path: Path) -> None:
    sweeping = Sweeping(plan, tmp_path / "j.jsonl", promote=True)
    search_driver = sweeping.search_driver
    assert search_driver.next_leg() is not None
    assert search_driver.report("t0000", report("t0000", 0))
    search_driver.retried("t0000", "its process died")
    assert search_driver.report("t0000", report("t0000", 0))  # out of its checkpoint: known already
    search_driver.completed("t0000")
    assert sweeping.ledger.records["t0000"].state == PAUSED
    assert len([line for line in told(sweeping.path) if line[0] == "epoch"]) == 1


def test_what_every_trial_would_meet_is_kept_for_the_end(plan: Plan, tmp_path: Path) -> None:
    sweeping = Sweeping(plan, tmp_path / "j.jsonl", promote=False)
    assert sweeping.search_driver.next_leg() is not None
    sweeping.search_driver.report("t0000", {FAILURE: "", FATAL: ["x: the disk is full"]})
    assert str(sweeping.search_driver.fatal) == "x: the disk is full"
    assert sweeping.interrupt.stop_all()
    assert sweeping.search_driver.next_leg() is None
    assert sweeping.search_driver.done


@pytest.mark.parametrize("at", ["start", "epoch"])
def test_a_full_disk_is_fatal_and_what_stood_before_resumes(plan: Plan, tmp_path: Path, at: str) -> None:
    """The process's own file size limit stands for the disk's end."""
    sweeping = Sweeping(plan, tmp_path / "j.jsonl", promote=False)
    if at == "epoch":
        assert sweeping.search_driver.next_leg() is not None
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (sweeping.path.stat().st_size + 20, before[1]))
    try:
        if at == "start":
            assert sweeping.search_driver.next_leg() is None
        else:
            sweeping.search_driver.report("t0000", report("t0000", 0))
            sweeping.search_driver.completed("t0000")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(sweeping.search_driver.fatal, StorageError)
    assert "cannot be written" in str(sweeping.search_driver.fatal)
    assert sweeping.interrupt.halted
    assert sweeping.search_driver.next_leg() is None
    sweeping.journal.close()
    again = Sweeping(plan, sweeping.path, promote=False)
    one_at_a_time(again)
    assert len(again.ledger.records) == TRIALS


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_leg_that_ends_too_early_is_a_failure_unless_it_was_cut_off(
    plan: Plan, tmp_path: Path, interrupted: bool
) -> None:
    """Else the search would wait for it for ever."""
    sweeping = Sweeping(plan, tmp_path / "journal.jsonl", promote=False)
    leg = sweeping.search_driver.next_leg()
    assert leg is not None
    sweeping.interrupt.requested = interrupted
    sweeping.search_driver.completed(leg.plan.trial_id)
    record = sweeping.ledger.records[leg.plan.trial_id]
    expected = (RUNNING, "") if interrupted else (FAILED, f"its training ended after 0 of {EPOCHS} epochs")
    assert (record.state, record.reason) == expected
