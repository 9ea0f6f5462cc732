"""What a lost machine means for a trial: it is said as such, and does not use up `max_failures`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, RayActorError
from ray.tune.experiment import Trial

from raydistill.sweep.callback import LOST_MACHINE, MOST_LOSSES, Bookkeeper, why_it_died


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
    """What a conductor is told."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def retried(self, trial_id: str, reason: str) -> None:
        self.reasons.append(reason)


class Story:
    """One trial of Tune's own, with one failure allowed, and what becomes of it."""

    def __init__(self, folder: Path) -> None:
        class InFolder(Trial):  # one with a storage of Ray's would need a Ray
            local_path = str(folder)

        self.trial = InFolder("trainable", stub=True, config={"trial_id": "t0000"}, max_failures=1)
        self.told = Told()
        self._book = Bookkeeper(self.told, lambda: None)  # type: ignore[arg-type]

    def fails(self, error: Exception) -> bool:
        """As Tune does it; False: it is not started again."""
        self.trial.handle_error(RayActorError(error_msg=str(error)))  # Tune keeps it, and cannot pickle each of them
        if self.trial.should_recover():
            self._book.on_trial_recover(0, [self.trial], self.trial)
            return True
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
