"""Ray Tune's events become entries of the ledger."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from raydistill.errors import RaydistillError
from raydistill.records import ENDED, FAILED, FINISHED, STOPPED, EpochMetrics, TrialRecord
from raydistill.sweep.interrupt import Interrupt
from raydistill.sweep.ledger import Ledger
from raydistill.sweep.trainable import FATAL, METRICS
from raydistill.sweep.trial_scheduler import FAILURE


class Bookkeeper(tune.Callback):
    """Translates. A sweep-wide error is kept in `fatal`, not raised: an exception here would tear Tune's loop.

    planned: each trial as it will be recorded. reasons: why the trial scheduler stopped a trial (it fills it in).
    """

    def __init__(
        self,
        ledger: Ledger,
        planned: Mapping[str, TrialRecord],
        reasons: Mapping[str, str],
        beat: Callable[[], None],
        interrupt: Interrupt,
    ) -> None:
        self.fatal: RaydistillError | None = None
        self._ledger = ledger
        self._planned = planned
        self._reasons = reasons
        self._failures: dict[str, str] = {}
        self._beat = beat
        self._interrupt = interrupt

    def __getstate__(self) -> dict[str, Any]:  # Tune pickles its callbacks; the journal holds this one's state
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._beat()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial_id = trial.config["trial_id"]
        with self._guarded():
            self._ledger.started(self._planned[trial_id])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        trial_id = trial.config["trial_id"]
        with self._guarded():
            if FATAL in result:
                raise RaydistillError(*result[FATAL])
            if FAILURE in result:
                self._failures[trial_id] = result[FAILURE]
            elif METRICS in result:
                self._ledger.epoch(trial_id, EpochMetrics.from_json(json.loads(result[METRICS])))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        with self._guarded():
            self._ledger.retried(trial.config["trial_id"], _why(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial_id = trial.config["trial_id"]
        record = self._ledger.records.get(trial_id)
        if record is None or record.state in ENDED or self.fatal is not None:
            return
        with self._guarded():
            if trial_id in self._failures:
                self._ledger.ended(trial_id, FAILED, self._failures[trial_id])
            elif trial_id in self._reasons:
                self._ledger.ended(trial_id, STOPPED, self._reasons[trial_id])
            elif record.last is not None and record.last.epoch + 1 >= record.epochs:
                self._ledger.ended(trial_id, FINISHED, f"trained all {record.epochs} epochs")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        with self._guarded():
            self._ledger.ended(trial.config["trial_id"], FAILED, _why(trial))

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keeps a user's error (the journal's disk is full) for the end of Tune's loop."""
        try:
            yield
        except RaydistillError as error:
            self.fatal = self.fatal or error
            self._interrupt.halted = True


def _why(trial: Any) -> str:
    """One line from what Tune wrote down of a trial whose process died or could not be started."""
    path = getattr(trial, "error_file", None)
    try:
        text = Path(path).read_text(errors="replace") if path else ""
    except OSError:
        text = ""
    latest = text.rpartition("Failure # ")[2]
    if "low on memory" in latest:
        return "its process was killed, the node ran low on memory"
    if "actor died" in latest or "ActorDied" in latest:
        return "its process died"
    lines = [line.strip() for line in latest.splitlines()[1:] if line.strip()]
    return lines[-1][:300] if lines else "its process ended without a word"
