from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from raydistill.errors import StorageError
from raydistill.tracking.sink import PARENT, MlflowSink, RunCard, is_permanent, root_cause
from raydistill.tracking.store import locate
from raydistill.tracking.writer import Action, Batch, Refused, Unavailable


def make_sink(storage: Path) -> MlflowSink:
    return MlflowSink(locate(None, storage), "simplenet", "sweep-1", lambda run: RunCard(run or "simplenet", 1000))


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (MlflowException("x", codes.INVALID_PARAMETER_VALUE), True),
        (MlflowException("x", codes.RESOURCE_DOES_NOT_EXIST), True),
        (MlflowException("x", codes.BAD_REQUEST), True),
        (MlflowException("x", codes.INTERNAL_ERROR), False),
        (MlflowException("x", codes.TEMPORARILY_UNAVAILABLE), False),
        (MlflowException("x", codes.REQUEST_LIMIT_EXCEEDED), False),
        (MlflowException("x", codes.PERMISSION_DENIED), False),  # a token may be renewed
        (requests.exceptions.ConnectionError("x"), False),
        (requests.exceptions.Timeout("x"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (FileNotFoundError("x"), True),
        (StorageError("x"), True),
        (TypeError("x"), True),
    ],
)
def test_what_is_worth_another_try(error: Exception, permanent: bool) -> None:
    assert is_permanent(error) is permanent


def test_root_cause_is_short() -> None:
    wrapped = MlflowException("API request failed with exception, with a whole page of detail" * 20)
    wrapped.__context__ = ConnectionRefusedError(111, "Connection refused")
    assert root_cause(wrapped) == "[Errno 111] Connection refused"


@pytest.mark.slow
@pytest.mark.parametrize("lost", [PARENT, "t0000"])
def test_a_run_whose_creation_was_not_answered_is_found_again(storage: Path, runs, monkeypatch, lost: str) -> None:
    sink = make_sink(storage)
    sink.open()
    create = sink._client.create_run
    names: list[str] = []

    def create_then_lose(experiment_id: str, start_ms: int, tags: dict[str, str], name: str) -> Any:
        made = create(experiment_id, start_ms, tags, name)
        names.append(name)
        if names.count(name) == 1 and name == (lost or "simplenet"):
            raise MlflowException("connection lost", codes.INTERNAL_ERROR)
        return made

    monkeypatch.setattr(sink._client, "create_run", create_then_lose)
    batch = Batch(tags=(("a", "b"),))
    with pytest.raises(Unavailable):
        sink.send("t0000", batch)
    sink.send("t0000", batch)
    found = runs(sink.place.uri)  # fails on two runs with one name
    assert set(found) == {"simplenet", "t0000"}
    assert names == ["simplenet", "t0000"]
    assert found["t0000"].data.tags["mlflow.parentRunId"] == found["simplenet"].info.run_id


@pytest.mark.slow
def test_a_changed_param_is_refused_and_the_rest_goes_on(storage: Path, runs) -> None:
    sink = make_sink(storage)
    sink.send("t0000", Batch(params=(("lr", "0.1"),)))
    sink.send("t0000", Batch(params=(("lr", "0.1"),)))
    with pytest.raises(Refused, match="lr"):
        sink.send("t0000", Batch(params=(("lr", "0.2"),)))
    sink.send("t0000", Batch(tags=(("a", "b"),)))
    assert runs(sink.place.uri)["t0000"].data.params == {"lr": "0.1"}


@pytest.mark.slow
def test_a_run_deleted_by_hand_is_refused(storage: Path) -> None:
    sink = make_sink(storage)
    sink.send("t0000", Batch(tags=(("a", "b"),)))
    sink._client.delete_run(sink.run_id("t0000"))
    with pytest.raises(Refused):
        sink.send("t0000", Batch(tags=(("a", "c"),)))


@pytest.mark.slow
def test_an_action_that_fails_with_the_server_alive_says_so(storage: Path) -> None:
    def fails(client: Any, run_id: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(Unavailable, match="Input/output error") as caught:
        make_sink(storage).send("t0000", Action("file", fails))
    assert caught.value.alive


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        MlflowException("(sqlite3.OperationalError) database or disk is full"),  # a server's answer: status 500
    ],
)
def test_a_full_disk_is_waited_for_however_long_and_said_with_its_place(storage: Path, error: Exception) -> None:
    """Reading works there, so the server seems alive; after five tries the record would be given up."""

    def full(client: Any, run_id: str) -> None:
        raise error

    with pytest.raises(Unavailable, match=r"mlflow\.db: the disk is full; free some space there") as caught:
        make_sink(storage).send("t0000", Action("file", full))
    assert not caught.value.alive
    assert caught.value.trouble == "cannot write"


@pytest.mark.slow
def test_a_database_that_is_damaged_inside_is_said_once_and_nothing_else_is_tried(storage: Path, records) -> None:
    from raydistill.tracking import SweepLog

    log = SweepLog(None, storage, "simplenet", "sweep-1")
    log.start()
    for record in records:
        log.trial_started(record)
    assert log.flush(60) == 0
    path = storage / "mlflow.db"
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    path.write_bytes(content)
    for record in records:
        log.trial_ended(record)
    assert log.finish(timeout_s=60) > 0
    assert log.broken
    (line,) = log.errors
    assert "the database is damaged; bring a copy back, or remove it: --resume sends all records again" in line
    assert not log.registered
