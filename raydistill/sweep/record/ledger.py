"""The driver's book: every event goes to the journal first, then to MLflow and to whoever watches."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from raydistill.metrics import Metric
from raydistill.records import BASELINE, ENDED, PAUSED, RUNNING, EpochMetrics, Evaluation, TrialRecord
from raydistill.search import FrontRow, Objective, front_rows
from raydistill.search.constraints import Constraint
from raydistill.search.highlights import progress
from raydistill.sweep.record.journal import History, Journal
from raydistill.sweep.record.observer import Observer
from raydistill.tracking import SweepLog

FRONT_EVERY_S = 20.0
"""Seconds between refreshes of the front's table and figures in MLflow."""


FRONT_SHARE = 0.02
"""Of the driver's time, for ranking the trials while they run. At the end it is done in any case."""


class Ledger:
    """`records`: every trial's latest state, by trial id, the baseline's among them. curves: each layer's damage by
    itself, as it was measured for the searcher; None: it was not. sizes, beside, allocations: what goes with them."""

    def __init__(
        self,
        journal: Journal,
        history: History,
        log: SweepLog,
        observer: Observer,
        objectives: Sequence[Objective],
        metrics: Mapping[str, Metric],
        constraints: Sequence[Constraint] = (),
    ) -> None:
        self.records: dict[str, TrialRecord] = dict(history.records)
        self.curves, self.sizes = history.curves, history.sizes
        self.beside, self.allocations = history.beside, history.allocations
        self.episodes = list(history.episodes)
        self.evidence = history.evidence
        self._journal = journal
        self._log = log
        self._observer = observer
        self._objectives = tuple(objectives)
        self._metrics = metrics
        self._constraints = tuple(constraints)
        self._front_sent = 0.0
        self._front_due = 0.0

    def resend(self, history: History) -> None:
        """Give MLflow all that the journal holds; what it has already is written over by the same."""
        for record in history.records.values():
            self._log.trial_started(record)
        for trial_id, metrics in history.epochs:
            self._log.epoch(trial_id, metrics)
        for record in history.records.values():
            if record.state in ENDED:
                self._log.trial_ended(record, files_of(record))

    def baseline(self, record: TrialRecord, epochs: Sequence[EpochMetrics]) -> None:
        """The dense baseline is there; epochs: what is known of its training, ``record.last`` the last of it.

        Where one that was lost has been trained again to the same figures, its epochs stay as they were first told.
        """
        known = self.records.get(BASELINE)
        if known is not None and _same_end(known, record):
            record, epochs = replace(record, last=known.last, test=known.test), []
        self.records[BASELINE] = record
        # one line: a driver killed between two would leave a baseline without all of its epochs
        history = [metrics.to_json() for metrics in epochs]
        self._journal.append("baseline", record=record.to_json(), epochs=history)
        self._log.trial_started(record)
        for metrics in epochs:
            self._log.epoch(BASELINE, metrics)
        self._log.trial_ended(record, files_of(record))
        self._observer.trial(record)
        self._show_front()

    def measured(
        self,
        curves: dict[str, list[tuple[float, float]]],
        sizes: dict[str, float],
        beside: dict[str, dict[str, float]] | None = None,
        allocations: dict[str, list[dict[str, float]]] | None = None,
    ) -> None:
        """Each layer's damage by itself is known: (level, loss) by weight, and what a level of 1 would bring. beside:
        the same in other figures of the network. allocations: by rule, levels by weight for rising totals."""
        said = {"beside": beside, "allocations": allocations}
        more = {key: value for key, value in said.items() if value}
        self._journal.append("curves", curves=curves, sizes=sizes, **more)
        self.curves, self.sizes = curves, sizes
        self.beside, self.allocations = beside or {}, allocations or {}

    def judged(self, losses: list[float]) -> None:
        """What each candidate of the searcher's pool loses that is pruned at once; None in the journal: no number."""
        self._journal.append("evidence", losses=[loss if math.isfinite(loss) else None for loss in losses])
        self.evidence = losses

    def played(self, levels: list[float], metric: float, figure: float) -> None:
        """What an allocation is worth that was pruned at once: an episode of AMC."""
        self._journal.append("episode", levels=levels, metric=metric, figure=figure)
        self.episodes.append((levels, metric, figure))

    def started(self, record: TrialRecord) -> None:
        """A trial runs; it keeps what it reached before an interruption."""
        known = self.records.get(record.trial_id)
        if known is not None:
            record = replace(record, last=known.last, checkpoint=known.checkpoint, started_ms=known.started_ms)
        self.records[record.trial_id] = record
        self._journal.append("trial_started", record=record.to_json())
        self._log.trial_started(record)
        self._observer.trial(record)

    def epoch(self, trial_id: str, metrics: EpochMetrics) -> None:
        """One trained epoch; one that is known already, from before an interruption, is passed over."""
        known = self.records[trial_id]
        if known.last is not None and metrics.epoch <= known.last.epoch:
            return
        self.records[trial_id] = replace(known, last=metrics, checkpoint=metrics.checkpoint)
        self._journal.append("epoch", trial_id=trial_id, metrics=metrics.to_json())
        self._log.epoch(trial_id, metrics)
        self._observer.trial(self.records[trial_id])

    def retried(self, trial_id: str, reason: str) -> None:
        self._journal.append("trial_retried", trial_id=trial_id, reason=reason)
        self._observer.warning(f"trial {trial_id} starts again from its last checkpoint: {reason}")

    def anew(self, trial_id: str, reason: str) -> None:
        """A trial lost what it had trained; epochs that are known stay as they were first told."""
        self._journal.append("trial_retried", trial_id=trial_id, reason=reason)
        self._observer.warning(f"trial {trial_id} starts anew from the baseline: {reason}")

    def paused(self, trial_id: str, reason: str) -> None:
        """A trial waits at its rung; it holds no resources."""
        record = replace(self.records[trial_id], state=PAUSED, reason=reason)
        self.records[trial_id] = record
        self._journal.append("trial_paused", trial_id=trial_id, reason=reason)
        self._log.trial_started(record)
        self._observer.trial(record)

    def ended(self, trial_id: str, state: str, reason: str) -> None:
        record = replace(self.records[trial_id], state=state, reason=reason, ended_ms=time.time_ns() // 1_000_000)
        self.records[trial_id] = record
        self._journal.append("trial_ended", trial_id=trial_id, state=state, reason=reason)
        self._log.trial_ended(record, files_of(record))
        self._observer.trial(record)
        self._show_front()

    def tested(self, trial_id: str, evaluation: Evaluation) -> None:
        self.records[trial_id] = replace(self.records[trial_id], test=evaluation)
        self._journal.append("tested", trial_id=trial_id, evaluation=evaluation.to_json())

    def front(self) -> list[FrontRow]:
        """All finished trials and the baseline, the front first."""
        return front_rows(list(self.records.values()), self._objectives, self._constraints)

    def running(self) -> list[TrialRecord]:
        return [record for record in self.records.values() if record.state == RUNNING]

    def _show_front(self) -> None:
        """Ranking all trials takes longer the more there are; a small share of the time is enough for it."""
        begun = time.monotonic()
        if begun < self._front_due:
            return
        rows = self.front()
        self._front_due = time.monotonic() + (time.monotonic() - begun) / FRONT_SHARE
        self._observer.front(rows)
        if time.monotonic() - self._front_sent > FRONT_EVERY_S:
            self._front_sent = time.monotonic()
            self._log.front(rows, self._objectives, self._metrics, progress(rows, self._objectives, self._metrics))


def _same_end(known: TrialRecord, record: TrialRecord) -> bool:
    """Whether two records tell of the same training, at whatever time."""
    if known.last is None or record.last is None:
        return False
    told = [
        (one.checkpoint, one.last.epoch, one.last.metrics, one.last.train_loss, one.last.sparsity)
        for one in (known, record)
        if one.last is not None
    ]
    return told[0] == told[1]


def files_of(record: TrialRecord) -> list[str]:
    """What a trial leaves behind: its checkpoint, its schedule, its table of sparsities."""
    if record.checkpoint is None:
        return []
    folder = record.checkpoint.rpartition("/")[0]
    return [record.checkpoint, f"{folder}/schedule.yaml", f"{folder}/sparsity.csv"]
