"""A session of a small sweep in a shared folder, without Ray and without MLflow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydistill.cluster.nodes import Node
from raydistill.records import BASELINE, FINISHED, EpochMetrics, Evaluation, TrialRecord
from raydistill.search import FrontRow, Objective
from raydistill.storage.store import Folder
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.planning.resources import Share
from raydistill.sweep.record.journal import FORMAT, Journal, read_journal
from raydistill.sweep.record.ledger import Ledger
from raydistill.sweep.record.observer import Observer
from raydistill.sweep.session import Session
from raydistill.sweep.tune.interrupt import Interrupt
from raydistill.tasks.classification import ImageShape
from raydistill.tasks.classification.metrics import METRICS
from raydistill.tracking import SweepLog

OBJECTIVES = (Objective("top1", "max"), Objective("sparsity", "max"))


class Logged(SweepLog):
    """Keeps what MLflow would be told."""

    def __init__(self, folder: Path) -> None:
        super().__init__(None, folder, "s", "s")
        self.told: list[tuple[object, ...]] = []

    def trial_started(self, record: TrialRecord) -> None:
        self.told.append(("started", record.trial_id, record.state))

    def epoch(self, trial_id: str, metrics: EpochMetrics) -> None:
        self.told.append(("epoch", trial_id, metrics.epoch))

    def trial_ended(self, record: TrialRecord, artifacts: Sequence[str] = ()) -> None:
        self.told.append(("ended", record.trial_id, record.state, *artifacts))

    def front(self, *arguments: Any) -> None:
        self.told.append(("front",))


class Heard(Observer):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.steps: list[str] = []
        self.fronts: list[list[str]] = []
        self.trials: list[tuple[str, str, int | None]] = []
        """Of what was shown the trial, its state and its last epoch."""

    def trial(self, record: TrialRecord) -> None:
        self.trials.append((record.trial_id, record.state, None if record.last is None else record.last.epoch))

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def step(self, text: str) -> None:
        self.steps.append(text)

    def front(self, rows: Sequence[FrontRow]) -> None:
        self.fronts.append([row.record.trial_id for row in rows if row.pareto])


def epoch(number: int, top1: float = 0.5, sparsity: float = 0.3, checkpoint: str | None = None) -> EpochMetrics:
    figures = {"top1": top1, "top5": 0.9, "loss": 1.0}
    return EpochMetrics(number, 4, 1.5, figures, 0.1, sparsity, {}, 1e3, 0.5, 1_000 + number, checkpoint)


def finished(trial_id: str, top1: float, sparsity: float, checkpoint: str | None = None) -> TrialRecord:
    last = epoch(3, top1, sparsity, checkpoint)
    return TrialRecord(trial_id, {"x": 1.0}, FINISHED, "a", "d", 0, last=last, checkpoint=checkpoint, epochs=4)


def with_test(record: TrialRecord) -> TrialRecord:
    return replace(record, test=Evaluation("test", {"top1": 0.5, "top5": 0.9, "loss": 1.0}, 10))


def ledger_in(folder: Path) -> tuple[Ledger, Logged, Heard]:
    """One that goes on from the journal that is there."""
    path = folder / "journal.jsonl"
    history = read_journal(path)
    journal = Journal(path)
    if history.start is None:
        journal.append("sweep_started", format=FORMAT, sweep_id="s", config={}, dataset={})
    log, observer = Logged(folder), Heard()
    return Ledger(journal, history, log, observer, OBJECTIVES, METRICS), log, observer


def session_of(write_sweep: Callable[..., Path], root: Path, *changes: tuple[str, object]) -> Session:
    sweep = load_sweep(write_sweep(*changes))
    folder = root / "tiny"
    ledger, _, observer = ledger_in(folder)
    task: Any = type("Named", (), {"name": "digits"})()
    plan = plan_sweep(sweep, ImageShape(10, (3, 32, 32)))
    return Session(
        sweep, Folder(root), folder, task, "f", plan, ledger, observer, Interrupt(), [Node(8, 0)], Share(2.0, 0.0)
    )


def is_in(record: TrialRecord, session: Session) -> None:
    """A record of an earlier day."""
    session.ledger.records[record.trial_id] = record


def with_baseline(session: Session) -> None:
    is_in(with_test(finished(BASELINE, 0.9, 0.0, str(session.folder / "dense.pt"))), session)
