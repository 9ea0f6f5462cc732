"""What a lost machine means for a trial: it is said as such, and does not use up `max_failures`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, RayActorError, RuntimeEnvSetupError
from ray.tune.experiment import Trial

from raydistill.cluster.last_words import LastWords
from raydistill.errors import RaydistillError
from raydistill.sweep.tune.callback import LOST_MACHINE, MOST_LOSSES, TuneCallback, why_it_died


def died(message: str) -> ActorDiedError:
    return ActorDiedError(ActorDiedErrorContext(actor_id=bytes(16), error_message=message))


PROCESS_DIED = died("The actor died unexpectedly before finishing this task. Worker exit type: SYSTEM_ERROR")
LOST = [
    died(
        "The actor died because its node has died. Node Id: 12ab\n"
        "\tthe actor's node was terminated unexpectedly: health check failed due to missing too many heartbeats"
    ),
    ActorUnavailableError(
        "The actor is temporarily unavailable: RpcError: RPC error: Socket closed rpc_code: 14", None
    ),
    NodeDiedError(
        "Task failed because the node it was running on is dead or unavailable. Node IP: 10.0.0.2, node ID: 1."
    ),
]


class Told:
    """What a search driver is told."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.halted: list[str] = []

    def retried(self, trial_id: str, reason: str) -> None:
        self.reasons.append(reason)

    failed = retried

    def halt(self, error: RaydistillError) -> None:
        self.halted.append(str(error))


class Story:
    """One trial of Tune's own, with one failure allowed, and what becomes of it."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        self.broken = ""

        class InFolder(Trial):  # one with a storage of Ray's would need a Ray
            local_path = str(folder)

        self.trial = InFolder("trainable", stub=True, config={"trial_id": "t0000"}, max_failures=1)
        self.told = Told()
        self.words = LastWords()
        self.looked_at: list[tuple[str, int]] = []
        self._book = TuneCallback(
            self.told,  # type: ignore[arg-type]
            lambda: None,
            self._cannot_run,
            self._last_words,
        )

    def _last_words(self, address: str, pid: int) -> LastWords:
        self.looked_at.append((address, pid))
        return self.words

    def _cannot_run(self, address: str) -> str:
        self.asked.append(address)
        return self.broken

    def fails(self, error: Exception) -> bool:
        """As Tune does it; False: it is not started again."""
        self.trial.handle_error(RayActorError(error_msg=str(error)))  # Tune keeps it, and cannot pickle each of them
        if self.trial.should_recover():
            self._book.on_trial_recover(0, [self.trial], self.trial)
            return True
        self._book.on_trial_error(0, [self.trial], self.trial)
        return False


@pytest.fixture
def story(tmp_path: Path) -> Any:
    return Story(tmp_path)


@pytest.mark.parametrize("error", LOST, ids=lambda error: type(error).__name__)
def test_a_lost_machine_is_said_as_such(error: Exception) -> None:
    assert why_it_died(str(error)) == LOST_MACHINE


def test_a_process_that_dies_is_none(story: Story) -> None:
    assert why_it_died(str(PROCESS_DIED)) != LOST_MACHINE
    assert story.fails(PROCESS_DIED)
    assert not story.fails(PROCESS_DIED)


def test_lost_machines_are_not_counted_against_the_trial(story: Story) -> None:
    assert all(story.fails(LOST[0]) for _ in range(MOST_LOSSES))
    assert story.told.reasons == [LOST_MACHINE] * MOST_LOSSES
    assert story.fails(PROCESS_DIED)  # its one failure is still left
    assert not story.fails(PROCESS_DIED)


def test_a_trial_that_always_loses_its_machine_ends(story: Story) -> None:
    losses = 0
    while story.fails(LOST[0]):
        losses += 1
    assert losses == MOST_LOSSES + 1


FULL = RuntimeEnvSetupError(
    "[Node 10.0.0.7] Traceback (most recent call last):\n  File ...\nOSError: [Errno 28] No space left on device\n"
)


def test_a_node_with_a_full_disk_is_named_and_ends_the_sweep(story: Story) -> None:
    """It would take one trial after the other, and fail each."""
    assert "no space is left on the disk of node 10.0.0.7" in why_it_died(str(FULL))
    assert story.fails(FULL)
    assert not story.fails(FULL)
    (line,) = story.told.halted
    assert line.startswith("trial t0000: no space is left on the disk of node 10.0.0.7")
    assert len(story.told.reasons) == 1  # of the retry: the trial has not failed, and is resumed


@pytest.mark.parametrize("broken", ["", "The worker died unexpectedly while executing this task."])
def test_a_node_on_which_every_process_dies_ends_the_sweep(broken: str, story: Story) -> None:
    story.broken = broken
    error = died("The actor died unexpectedly before finishing this task.\n\tpid: 12\n\tip: 10.0.0.7\n")
    assert story.fails(error)
    assert not story.asked  # a process may die once
    assert not story.fails(error)
    assert story.asked == ["10.0.0.7"]
    assert story.told.halted == (
        [f"trial t0000: node 10.0.0.7 cannot run anything ({broken}): is its disk full? 'raydistill doctor' looks"]
        if broken
        else []
    )
    assert len(story.told.reasons) == (1 if broken else 2)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (LastWords("crashed (Aborted) in a.py"), "its process crashed (Aborted) in a.py"),
        (LastWords(oom_killed=True), "out of memory: its process was killed by the kernel; lower batch_size"),
        (LastWords(), "its process died without a word: killed from outside (SIGKILL; dmesg tells"),
    ],
)
def test_how_a_process_died_is_asked_on_its_node(words: LastWords, reason: str, story: Story) -> None:
    """Ray's own account, which guesses at memory, does not decide."""
    story.words = words
    guess = "(1) the process was killed by the OOM killer due to high memory usage"
    assert story.fails(
        died(f"The actor died unexpectedly before finishing this task.\n\tpid: 12\n\tip: 10.0.0.7\n{guess}")
    )
    assert story.looked_at == [("10.0.0.7", 12)]
    assert story.told.reasons[0].startswith(reason)


def test_a_lost_machine_is_not_asked(story: Story) -> None:
    assert story.fails(died("The actor died because its node has died.\n\tpid: 12\n\tip: 10.0.0.7\n"))
    assert not story.looked_at
