"""Tells the search driver what becomes of Ray Tune's trials."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ray import tune

from raydistill.cluster.last_words import LastWords, ended, last_words
from raydistill.cluster.survey import cannot_run
from raydistill.errors import Fault, ResourceError
from raydistill.sweep.search_driver import SearchDriver
from raydistill.training.memory import WAY_OUT

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

LOST_MACHINE = "its machine was lost: switched off, taken back by the cloud, or cut off from the network"

MOST_LOSSES = 10
"""Machines that one trial may lose before that counts as its own failure: it might be what kills them."""


class TuneCallback(tune.Callback):
    """beat: called at every step of Tune's loop. cannot_run, last_words: as `survey` and `last_words` have them."""

    def __init__(
        self,
        search_driver: SearchDriver,
        beat: Callable[[], None],
        cannot_run: Callable[[str], str] = cannot_run,
        last_words: Callable[[str, int], LastWords] = last_words,
    ) -> None:
        self._search_driver = search_driver
        self._beat = beat
        self._cannot_run = cannot_run
        self._last_words = last_words
        self._losses: Counter[str] = Counter()

    def __getstate__(self) -> dict[str, object]:  # Tune pickles its callbacks; the journal holds this one's state
        return {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        self._beat()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        trial_id, why = trial.config["trial_id"], why_it_died(_latest_error(trial), self._last_words)
        if why == LOST_MACHINE and self._losses[trial_id] < MOST_LOSSES:
            self._losses[trial_id] += 1
            trial.run_metadata.num_failures -= 1  # no fault of the trial's, and of max_failures
        self._search_driver.retried(trial_id, why)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        self._search_driver.completed(trial.config["trial_id"])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        text = _latest_error(trial)
        trial_id, why = trial.config["trial_id"], why_it_died(text, self._last_words)
        broken = why if disk_is_full(text) else self._broken(text)
        if broken:  # the next trial would fare no better there
            self._search_driver.halt(ResourceError(Fault(f"trial {trial_id}", broken)))
        else:
            self._search_driver.failed(trial_id, why)

    def _broken(self, text: str) -> str:
        """What is wrong with the node that a process died on; "" if it runs others. One that ends all is a black hole:
        it is free at once, and is given the next trial."""
        where = node_of(text)
        why = self._cannot_run(where) if died(text) and where else ""
        return f"node {where} cannot run anything ({why}): is its disk full? 'raydistill doctor' looks" if why else ""


_LOST = ("because its node has died", "node it was running on is dead", "is temporarily unavailable")
"""Ray's words for it; the last where the connection broke and it does not know yet what became of the node."""


_NO_SPACE = ("No space left on device", "Disk quota exceeded", "OutOfDiskError", "running out of disk")
_PID = re.compile(r"\bpid: (\d+)")
_NODE = re.compile(r"\[Node (\S+)\]|\bip: (\S+)|\bNode IP: ([^\s,]+)")


def why_it_died(
    text: str,
    last_words: Callable[[str, int], LastWords] = last_words,
    place: tuple[str, int] | None = None,
) -> str:
    """One line from Ray's account of a process that died or could not be started.

    Ray guesses at memory whenever a process is gone; here memory is said where Ray's monitor or the kernel has killed.
    place: the node's address and the process, where Ray's account does not say it: it does for actors only.
    """
    if disk_is_full(text):
        where = node_of(text)
        disk = f"the disk of node {where}" if where else "its node's disk"
        return f"no space is left on {disk}, and Ray can start nothing there; free some, and start Ray there again"
    if "low on memory" in text:
        return f"out of memory: its process was killed, the node ran low on memory; {WAY_OUT}"
    if any(words in text for words in _LOST):
        return LOST_MACHINE
    if died(text):
        pid = _PID.search(text)
        place = place or ((node_of(text), int(pid[1])) if pid and node_of(text) else None)
        words = last_words(*place) if place else LastWords()
        if words.oom_killed:
            return f"out of memory: its process was killed by the kernel; {WAY_OUT}"
        return f"its process {words.text or ended(text)}"
    lines = [line.strip() for line in text.splitlines()[1:] if line.strip()]
    return lines[-1][:300] if lines else "its process ended without a word"


def disk_is_full(text: str) -> bool:
    """Whether Ray's account says that a node has no room for what Ray itself writes there."""
    return any(words in text for words in _NO_SPACE)


def died(text: str) -> bool:
    """Whether Ray's account is of a process that died, not of one that raised an error."""
    return any(words in text for words in ("actor died", "ActorDied", "worker died", "WorkerCrashed"))


def node_of(text: str) -> str:
    """The address of the node that Ray's account is about; "" if it does not say."""
    found = _NODE.search(text)
    return next(filter(None, found.groups())) if found else ""


def _latest_error(trial: Trial) -> str:
    """What Tune wrote down of the trial's latest failure; "" if it could not."""
    path = getattr(trial, "error_file", None)
    try:
        text = Path(path).read_text(errors="replace") if path else ""
    except OSError:
        return ""
    return text.rpartition("Failure # ")[2]
