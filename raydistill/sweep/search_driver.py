"""The driver's side of the search: its orders become planned trials, their results are entered, all of it is recorded.

Ray Tune's searcher, trial scheduler and callback only translate. A *leg* is one stay of a trial on a worker: from its
start or its last checkpoint to its end, or to the rung where it pauses. A paused trial is nothing but its checkpoint:
it holds no resources. A promoted one runs its next leg.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raydistill.errors import ConfigError, RaydistillError
from raydistill.records import BASELINE, ENDED, FAILED, FINISHED, PAUSED, STOPPED, EpochMetrics, Scalar, TrialRecord
from raydistill.search.decisions import GO_ON, PAUSE, PLANNED, STOP, Verdict
from raydistill.search.search import DONE, WAIT, Search
from raydistill.sweep.planning.foresight import known_at_the_end
from raydistill.sweep.planning.plan import TrialPlan, trial_name, trial_number
from raydistill.sweep.record.journal import History
from raydistill.sweep.record.ledger import Ledger
from raydistill.sweep.trial.trainable import ANEW, EPOCH, FAILURE, FATAL, RETRIED
from raydistill.sweep.tune.interrupt import Interrupt


@dataclass(frozen=True)
class Leg:
    """known: epochs that the ledger holds already. until: epochs after which the trial pauses; None: it does not."""

    plan: TrialPlan
    known: int
    until: int | None


class SearchDriver:
    """draw: a trial's number and values to its plan. record: a trial as it is first recorded (no plan: it failed).

    name, number: a trial's id from its number, and back. done: all legs have been handed out. fatal: a sweep-wide
    error; it is kept, for an exception in one of Tune's hooks would tear its loop.
    """

    def __init__(
        self,
        search: Search,
        ledger: Ledger,
        draw: Callable[[int, Mapping[str, Scalar]], TrialPlan],
        record: Callable[[int, Mapping[str, Scalar], TrialPlan | None], TrialRecord],
        interrupt: Interrupt,
        name: Callable[[int], str] = trial_name,
        number: Callable[[str], int] = trial_number,
    ) -> None:
        self.done = False
        self.fatal: RaydistillError | None = None
        self._search, self._ledger = search, ledger
        self._draw, self._record = draw, record
        self._interrupt = interrupt
        self._name, self._number = name, number
        self._open: list[int] = []
        self._verdicts: dict[str, Verdict] = {}
        self._failures: dict[str, str] = {}

    def replay(self, history: History) -> None:
        """Bring the search to where the journal left it. What was decided but not yet recorded is recorded now.

        Trials that were running come first, in order.
        """
        for event, trial_id, metrics in history.story:
            if trial_id == BASELINE or history.records[trial_id].confirms:
                continue
            number, record = self._number(trial_id), history.records[trial_id]
            if number not in self._search.observations:
                self._search.recall(number, record.values)
            elif event == "trial_started" and number in self._search.paused:
                self._search.resumed(number)
            elif event == "trial_ended":
                self._search.ended(number, failed=True)
            if metrics is not None:
                self._enter(trial_id, metrics, record)
                if self._verdicts.get(trial_id, Verdict(GO_ON)).action == PAUSE:
                    self._search.pause(number)
                    del self._verdicts[trial_id]
        for trial_id, record in list(self._ledger.records.items()):
            if trial_id == BASELINE or record.confirms:
                continue
            number = self._number(trial_id)
            if record.state in ENDED:
                self._search.ended(number, failed=record.state == FAILED)
            elif number in self._search.paused:
                if record.state != PAUSED:
                    self._ledger.paused(trial_id, "paused at its rung")
            else:
                self._settle(trial_id, record)
        self._open = sorted(self._search.running)

    @property
    def idle(self) -> bool:
        """Nothing is left to run."""
        return not self._open and self._search.idle

    def next_leg(self) -> Leg | None:
        """What runs next; None: nothing now, or, when `done`, nothing more."""
        with self._guarded():
            while self.fatal is None:
                number = self._open.pop(0) if self._open else -1
                if number < 0:
                    order = self._search.next()
                    self.done = order.kind == DONE
                    if order.kind in (DONE, WAIT):
                        return None
                    number = order.trial
                if self._drawable(number):
                    return self._leg(number)
        self.done = True
        return None

    def report(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """One report of a trial; False: it has to stop."""
        with self._guarded():
            if FATAL in result:
                raise RaydistillError(*result[FATAL])
            if FAILURE in result:
                self._failures[trial_id] = str(result[FAILURE])
                return False
            if ANEW in result:
                self._ledger.anew(trial_id, str(result[ANEW]))
            if RETRIED in result:
                self._ledger.retried(trial_id, str(result[RETRIED]))
            if EPOCH in result:
                metrics = EpochMetrics.from_json(json.loads(result[EPOCH]))
                self._ledger.epoch(trial_id, metrics)
                self._enter(trial_id, metrics, self._ledger.records[trial_id])
        return self._verdicts.get(trial_id, Verdict(GO_ON)).action != STOP

    def retried(self, trial_id: str, reason: str) -> None:
        """Its process died; Tune starts the leg again."""
        with self._guarded():
            self._ledger.retried(trial_id, reason)

    def completed(self, trial_id: str) -> None:
        """A leg is over. A trial that an interruption cut off is not: that one is resumed."""
        record = self._ledger.records.get(trial_id)
        if record is None or record.state in ENDED or self.fatal is not None:
            return
        with self._guarded():
            if not self._settle(trial_id, record) and not self._interrupt.stop_all():
                last = 0 if record.last is None else record.last.epoch + 1
                self._end(trial_id, FAILED, f"its training ended after {last} of {record.epochs} epochs")

    def _settle(self, trial_id: str, record: TrialRecord) -> bool:
        """Record what has become of a trial whose leg is over; False where nothing has."""
        number, verdict = self._number(trial_id), self._verdicts.pop(trial_id, Verdict(GO_ON))
        with self._guarded():
            if trial_id in self._failures:
                self._end(trial_id, FAILED, self._failures.pop(trial_id))
            elif verdict.action == STOP:
                self._end(trial_id, STOPPED, verdict.why)
            elif verdict.action == PAUSE:
                self._search.pause(number)
                self._ledger.paused(trial_id, verdict.why)
            elif _trained(record):
                self._end(trial_id, FINISHED, _whole(record))
            else:
                return False
        return True

    def failed(self, trial_id: str, reason: str) -> None:
        """Its process died too often; if that was after its last epoch, or its leg's, nothing is lost."""
        if trial_id in self._verdicts:
            self.completed(trial_id)
            return
        with self._guarded():
            if _trained(self._ledger.records[trial_id]):
                self._end(trial_id, FINISHED, _whole(self._ledger.records[trial_id]))
            else:
                self._end(trial_id, FAILED, reason)

    def halt(self, error: RaydistillError) -> None:
        """Something that every trial would meet: the sweep ends, its trials wait for it to be resumed."""
        with self._guarded():
            raise error

    def close(self) -> None:
        """No more promotions: what still pauses is stopped, and told why."""
        with self._guarded():
            for number in sorted(self._search.paused):
                self._end(self._name(number), STOPPED, self._search.trial_scheduler.why_not_promoted(number))

    def _end(self, trial_id: str, state: str, reason: str) -> None:
        self._search.ended(self._number(trial_id), failed=state == FAILED)
        self._ledger.ended(trial_id, state, reason)

    def _enter(self, trial_id: str, metrics: EpochMetrics, record: TrialRecord) -> None:
        planned = {PLANNED: record.planned_sparsity, **record.planned}
        figures = {**metrics.scalars, **planned, **known_at_the_end(metrics.sparsity, metrics.footprint)}
        verdict = self._search.result(self._number(trial_id), metrics.epoch + 1, figures)
        if verdict.action != GO_ON:
            self._verdicts[trial_id] = verdict

    def _drawable(self, number: int) -> bool:
        """Whether the drawn values make a trial; where they do not, it is recorded as failed and the others go on."""
        values = self._search.observations[number].values
        try:
            self._draw(number, values)
        except ConfigError as error:
            self._ledger.started(self._record(number, values, None))
            self._end(self._name(number), FAILED, "; ".join(str(fault) for fault in error.faults))
            return False
        return True

    def _leg(self, number: int) -> Leg:
        values = self._search.observations[number].values
        plan = self._draw(number, values)
        self._ledger.started(self._record(number, values, plan))
        last = self._ledger.records[plan.trial_id].last
        known = 0 if last is None else last.epoch + 1
        return Leg(plan, known, self._search.trial_scheduler.until(number, known))

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keeps a user's error (the journal's disk is full) for the end of Tune's loop."""
        try:
            yield
        except RaydistillError as error:
            self.fatal = self.fatal or error
            self._interrupt.halted = True


def _trained(record: TrialRecord) -> bool:
    return record.last is not None and record.last.epoch + 1 >= record.epochs


def _whole(record: TrialRecord) -> str:
    return f"trained all {record.epochs} epochs"
