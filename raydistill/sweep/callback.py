"""Tells the conductor what becomes of Ray Tune's trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from raydistill.sweep.conductor import Conductor
from raydistill.training.memory import WAY_OUT

LOST_MACHINE = "its machine was lost: switched off, taken back by the cloud, or cut off from the network"

MOST_LOSSES = 10
"""Machines that one trial may lose before that counts as its own failure: it might be what kills them."""


class Bookkeeper(tune.Callback):
    """beat: called at every step of Tune's loop."""

    def __init__(self, conductor: Conductor, beat: Callable[[], None]) -> None:
        self._conductor = conductor
        self._beat = beat
        self._oom_kills = oom_kills()
        self._losses: Counter[str] = Counter()

    def __getstate__(self) -> dict[str, Any]:  # Tune pickles its callbacks; the journal holds this one's state
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self._beat()

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        trial_id, why = trial.config["trial_id"], self._why(trial)
        if why == LOST_MACHINE and self._losses[trial_id] < MOST_LOSSES:
            self._losses[trial_id] += 1
            trial.run_metadata.num_failures -= 1  # no fault of the trial's, and of max_failures
        self._conductor.retried(trial_id, why)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._conductor.completed(trial.config["trial_id"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._conductor.failed(trial.config["trial_id"], self._why(trial))

    def _why(self, trial: Any) -> str:
        before, self._oom_kills = self._oom_kills, oom_kills()
        return why_it_died(_latest_error(trial), self._oom_kills > before)


_LOST = ("because its node has died", "node it was running on is dead", "is temporarily unavailable")
"""Ray's words for it; the last where the connection broke and it does not know yet what became of the node."""


def why_it_died(text: str, oom_killed: bool = False) -> str:
    """One line from Ray's account of a process that died or could not be started.

    oom_killed: the kernel of this machine has killed a process for want of memory; Ray does not see that.
    """
    if "low on memory" in text:
        return f"out of memory: its process was killed, the node ran low on memory; {WAY_OUT}"
    if any(words in text for words in _LOST):
        return LOST_MACHINE
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
