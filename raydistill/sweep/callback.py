"""Tells the conductor what becomes of Ray Tune's trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from raydistill.sweep.conductor import Conductor


class Bookkeeper(tune.Callback):
    """beat: called at every step of Tune's loop."""

    def __init__(self, conductor: Conductor, beat: Callable[[], None]) -> None:
        self._conductor = conductor
        self._beat = beat

    def __getstate__(self) -> dict[str, Any]:  # Tune pickles its callbacks; the journal holds this one's state
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._beat()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._conductor.retried(trial.config["trial_id"], _why(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._conductor.completed(trial.config["trial_id"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._conductor.failed(trial.config["trial_id"], _why(trial))


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
