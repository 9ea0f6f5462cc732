"""Between workers and driver: messages, checkpoints, and why workers failed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydistill.cluster.parcels import Outbox
from raydistill.cluster.relay import Relay, _why
from raydistill.cluster.worker import Done, Minibatch, Trained
from raydistill.records import EpochMetrics
from raydistill.training.checkpoint import FILE_NAME


class Unwatched(Relay):
    """One that nobody ends: it would end this very process."""

    def _watch(self) -> None:
        return


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Unwatched(b"first")
    yield made
    made._folder.cleanup()


def trained(folder: Path, outbox: Outbox, content: bytes) -> Trained:
    (folder / FILE_NAME).write_bytes(content)
    return Trained(EpochMetrics(0, 1, 0.0, {}, 0.1, 0.0, {}, 1.0, 1.0, 0), outbox.changed())


def test_messages_come_in_their_order_and_none_twice(relay: Relay) -> None:
    messages = [Minibatch(0, index, 3, 0.5) for index in range(3)]
    for message in messages:
        relay.post(message)
    assert relay.take(0.0) == messages
    assert relay.take(0.0) == []


def test_an_epoch_waits_for_the_driver_and_its_checkpoint_is_kept_beside_the_one_before(
    relay: Relay, tmp_path: Path
) -> None:
    outbox = Outbox(tmp_path)
    assert (relay.latest(), relay.checkpoint(0)) == (0, b"first")
    for number in (1, 2):
        worker = threading.Thread(target=relay.post, args=(trained(tmp_path, outbox, b"x" * number),))
        worker.start()
        assert len(relay.take(5.0)) == 1
        assert worker.is_alive(), "the driver is not done with it"
        relay.read()
        worker.join(5.0)
        assert not worker.is_alive()
        assert (relay.latest(), relay.checkpoint(number)) == (number, b"x" * number)
    assert relay.checkpoint(1) == b"x"
    with pytest.raises(KeyError):
        relay.checkpoint(0)


def test_the_end_travels_as_any_message(relay: Relay) -> None:
    relay.post(Done({}))
    assert relay.take(0.0) == [Done({})]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Workers were killed as the node ran low on memory\n", "out of memory: a worker's process was killed"),
        ("The actor died\nWorker exits with an exit code 7", "a worker's process ended with exit code 7"),
        ("ActorDied: ... receives a SIGTERM", "a worker's process was ended from outside (SIGTERM)"),
        ("a traceback\n\nValueError: of the model's\n", "ValueError: of the model's"),
        ("", "it ended without a word"),
    ],
)
def test_why_workers_failed_is_one_line(text: str, line: str) -> None:
    assert _why(text, []).startswith(line)
    assert len(_why("x" * 999, [])) == 300
