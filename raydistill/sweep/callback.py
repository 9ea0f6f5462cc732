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
from raydistill.training.memory import WAY_OUT


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
        self._oom_kills = oom_kills()

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
            self._ledger.retried(trial.config["trial_id"], self._why(trial))

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
        trial_id = trial.config["trial_id"]
        record = self._ledger.records[trial_id]
        with self._guarded():
            if record.last is not None and record.last.epoch + 1 >= record.epochs:  # it died after its work was done
                self._ledger.ended(trial_id, FINISHED, f"trained all {record.epochs} epochs")
            else:
                self._ledger.ended(trial_id, FAILED, self._why(trial))

    def _why(self, trial: Any) -> str:
        before, self._oom_kills = self._oom_kills, oom_kills()
        return why_it_died(_latest_error(trial), self._oom_kills > before)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keeps a user's error (the journal's disk is full) for the end of Tune's loop."""
        try:
            yield
        except RaydistillError as error:
            self.fatal = self.fatal or error
            self._interrupt.halted = True


def why_it_died(text: str, oom_killed: bool = False) -> str:
    """One line from Ray's account of a process that died or could not be started.

    oom_killed: the kernel of this machine has killed a process for want of memory; Ray does not see that.
    """
    if "low on memory" in text:
        return f"out of memory: its process was killed, the node ran low on memory; {WAY_OUT}"
    died = "actor died" in text or "ActorDied" in text or "worker died" in text
    if died and oom_killed:
        return f"out of memory: its process was killed by the kernel; {WAY_OUT}"
    if died:
        return f"its process died, perhaps killed because the node was out of memory (dmesg tells); {WAY_OUT}"
    lines = [line.strip() for line in text.splitlines()[1:] if line.strip()]
    return lines[-1][:300] if lines else "its process ended without a word"


def oom_kills() -> int:
    """How many processes this machine's kernel has killed for want of memory; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _latest_error(trial: Any) -> str:
    """What Tune wrote down of the trial's latest failure; "" if it could not."""
    path = getattr(trial, "error_file", None)
    try:
        text = Path(path).read_text(errors="replace") if path else ""
    except OSError:
        return ""
    return text.rpartition("Failure # ")[2]
