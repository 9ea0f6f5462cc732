"""A journal followed into a bucket: whole lines, in order, the latest driver's."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raydistill.errors import Fault, StorageError
from raydistill.storage import mirror as mirrors
from raydistill.storage.mirror import Mirror, mirrored
from raydistill.storage.objects import BucketUri, Objects
from raydistill.sweep.record.journal import Journal

KEY = "tiny/journal"


def allowed() -> None:
    pass


def opened(path: Path, objects: Objects) -> Journal:
    return Journal(path, Mirror(objects, KEY, allowed))


def numbers(content: bytes) -> list[int]:
    return [json.loads(line)["number"] for line in content.splitlines()]


@pytest.mark.slow
def test_what_is_awaited_is_there_and_the_rest_by_the_end(objects: Objects, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with opened(path, objects) as journal:
        journal.append("epoch", number=0)
        journal.append("trial_started", number=1)
        assert numbers(mirrored(objects, KEY)) == [0, 1]
        for number in range(2, 50):
            journal.append("epoch", number=number)
    assert mirrored(objects, KEY) == path.read_bytes()
    assert len(objects.names(KEY)) == 1


@pytest.mark.slow
def test_many_lines_make_few_pieces(objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "PIECE_BYTES", 2000)
    path = tmp_path / "journal.jsonl"
    with opened(path, objects) as journal:
        for number in range(100):
            journal.append("trial_started", number=number, text="x" * 100)
            if number % 10 == 0:
                assert numbers(mirrored(objects, KEY)) == list(range(number + 1))
    assert mirrored(objects, KEY) == path.read_bytes()
    assert 5 <= len(objects.names(KEY)) <= 10
    objects.delete(objects.names(KEY)[1])
    with pytest.raises(StorageError, match="piece 1 of the journal is missing"):
        mirrored(objects, KEY)


@pytest.mark.slow
def test_the_next_driver_takes_it_all_along(objects: Objects, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    with opened(first, objects) as journal:
        journal.append("trial_started", number=0)
    second.write_bytes(mirrored(objects, KEY) + b'{"event": "epoch", "numb')  # torn by the power cut
    with opened(second, objects) as journal:
        assert numbers(mirrored(objects, KEY)) == [0]
        journal.append("trial_started", number=1)
    assert numbers(mirrored(objects, KEY)) == [0, 1]
    assert len(objects.names(KEY)) == 1  # the generation before is gone


@pytest.mark.slow
def test_a_driver_believed_dead_spoils_nothing(objects: Objects, tmp_path: Path) -> None:
    first = opened(tmp_path / "first.jsonl", objects)
    first.append("trial_started", number=0)
    (tmp_path / "second.jsonl").write_bytes(mirrored(objects, KEY))
    with opened(tmp_path / "second.jsonl", objects) as second:
        second.append("trial_started", number=1)
        first.append("trial_started", number=77)
        second.append("trial_started", number=2)
        assert numbers(mirrored(objects, KEY)) == [0, 1, 2]
    first.close()
    assert numbers(mirrored(objects, KEY)) == [0, 1, 2]


@pytest.mark.slow
def test_who_is_not_allowed_any_more_stops(objects: Objects, tmp_path: Path) -> None:
    lost: list[str] = []

    def check() -> None:
        if lost:
            raise StorageError(Fault("driver", "has been taken over"))

    journal = Journal(tmp_path / "journal.jsonl", Mirror(objects, KEY, check))
    journal.append("trial_started", number=0)
    lost.append("now")
    with pytest.raises(StorageError, match="has been taken over"):
        journal.append("trial_started", number=1)
    with pytest.raises(StorageError, match=r"^driver: has been taken over$"):
        journal.append("epoch", number=2)
    assert numbers(mirrored(objects, KEY)) == [0]
    assert numbers((tmp_path / "journal.jsonl").read_bytes()) == [0, 1, 2]


@pytest.mark.slow
def test_an_outage_holds_up_only_who_waits(address: BucketUri, objects: Objects, gate: Any, tmp_path: Path) -> None:
    away = replace(address, options={**address.options, "endpoint_override": f"127.0.0.1:{gate.port}"})
    with opened(tmp_path / "journal.jsonl", Objects(away, outage_s=60.0)) as journal:
        journal.append("sweep_started", number=0)
        gate.close()
        for number in range(1, 20):
            journal.append("epoch", number=number)
        waiting = threading.Thread(target=journal.append, args=("trial_started",), kwargs={"number": 20})
        waiting.start()
        time.sleep(1.5)
        assert waiting.is_alive()
        assert numbers(mirrored(objects, KEY)) == [0]
        gate.open()
        waiting.join()
        assert numbers(mirrored(objects, KEY)) == list(range(21))


@pytest.mark.slow
def test_an_outage_that_does_not_end(address: BucketUri, objects: Objects, gate: Any, tmp_path: Path) -> None:
    away = replace(address, options={**address.options, "endpoint_override": f"127.0.0.1:{gate.port}"})
    path = tmp_path / "journal.jsonl"
    with opened(path, Objects(away, outage_s=2.0)) as journal:
        journal.append("sweep_started", number=0)
        gate.close()
        with pytest.raises(StorageError, match="does not answer"):
            journal.append("trial_started", number=1)
        with pytest.raises(StorageError, match="does not answer"):
            journal.close()
    assert numbers(path.read_bytes()) == [0, 1]  # the working copy has what the bucket lacks
    gate.open()
    assert numbers(mirrored(objects, KEY)) == [0]
    with opened(path, Objects(away)) as journal:
        assert numbers(mirrored(objects, KEY)) == [0, 1]


class Counting(Objects):
    """The bucket, and what was put into it."""

    def put(self, key: str, content: bytes, outage_s: float | None = None) -> None:
        super().put(key, content, outage_s)
        self.puts = [*getattr(self, "puts", []), (key.rpartition("/")[2], len(content))]


@pytest.mark.slow
def test_a_piece_that_is_full_stays_as_it_is(
    address: BucketUri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its size or above; the next one begins with the next line."""
    line = len(json.dumps({"event": "trial_started", "time_ms": int(1e12), "number": 0, "text": "x" * 100})) + 1
    monkeypatch.setattr(mirrors, "PIECE_BYTES", 2 * line)
    objects, path = Counting(address), tmp_path / "journal.jsonl"
    with opened(path, objects) as journal:
        for number in range(5):
            journal.append("trial_started", number=number, text="x" * 100)
            assert mirrored(objects, KEY) == path.read_bytes()
    assert objects.puts == [
        ("000000.jsonl", line), ("000000.jsonl", 2 * line),
        ("000001.jsonl", line), ("000001.jsonl", 2 * line),
        ("000002.jsonl", line),
    ]  # fmt: skip
    assert [name.rpartition("/")[2] for name in objects.names(KEY)] == [f"{n:06d}.jsonl" for n in range(3)]
    objects.delete(objects.names(KEY)[1])
    with pytest.raises(StorageError, match=f"{address.uri}/{KEY}/.*: piece 1 of the journal is missing; bring it back"):
        mirrored(objects, KEY)


@pytest.mark.slow
def test_what_nobody_waits_for_travels_with_the_next(
    address: BucketUri, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "PERIOD_S", 3600.0)
    objects = Counting(address)
    with opened(tmp_path / "journal.jsonl", objects) as journal:
        journal.append("trial_started", number=0)
        for number in range(1, 10):
            journal.append("epoch", number=number)
        assert len(objects.puts) == 1
        journal.append("trial_started", number=10)
        assert len(objects.puts) == 2
        assert numbers(mirrored(objects, KEY)) == list(range(11))
        journal.append("epoch", number=11)
    assert len(objects.puts) == 3  # the end does not wait for the period
    assert numbers(mirrored(objects, KEY)) == list(range(12))


@pytest.mark.slow
def test_half_a_line_is_not_sent(objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is in the middle of writing it."""
    monkeypatch.setattr(mirrors, "PERIOD_S", 0.01)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"number": 0}\n')
    mirror = Mirror(objects, KEY, allowed)
    mirror.begin(path)
    with path.open("ab") as file:
        file.write(b'{"number": 1}\n{"numb')
        file.flush()
        mirror.grown(wait=False)
        deadline = time.monotonic() + 60
        while numbers(mirrored(objects, KEY)) != [0, 1]:  # `numbers` would fail at half a line
            assert time.monotonic() < deadline
        file.write(b'er": 2}\n')
    mirror.grown(wait=True)
    assert numbers(mirrored(objects, KEY)) == [0, 1, 2]
    mirror.close()


@pytest.mark.slow
def test_what_is_no_generation_does_not_count(objects: Objects, tmp_path: Path) -> None:
    objects.put(f"{KEY}/000009-0123abcd/000000.jsonl", b'{"number": 0}\n')
    objects.put(f"{KEY}/000011-0123abcd/000001.jsonl", b'{"number": 7}\n')  # its driver died before its first piece
    objects.put(f"{KEY}/999999/000000.jsonl", b"somebody's own")
    assert numbers(mirrored(objects, KEY)) == [0]
    path = tmp_path / "journal.jsonl"
    path.write_bytes(mirrored(objects, KEY))
    with opened(path, objects) as journal:
        journal.append("trial_started", number=1)
    latest = [name for name in objects.names(KEY) if f"{KEY}/000010-" in name]
    assert len(latest) == 1
    assert numbers(mirrored(objects, KEY)) == [0, 1]
    assert mirrored(objects, "tiny/other") == b""


@pytest.mark.slow
def test_what_is_left_behind_is_said(address: BucketUri, gate: Any, tmp_path: Path) -> None:
    away = replace(address, options={**address.options, "endpoint_override": f"127.0.0.1:{gate.port}"})
    path = tmp_path / "journal.jsonl"
    mirror = Mirror(Objects(away, outage_s=60.0), KEY, allowed)
    path.write_bytes(b"")
    mirror.begin(path)
    gate.close()
    path.write_bytes(b'{"number": 0}\n')
    mirror.grown(wait=False)
    with pytest.raises(StorageError, match=f"{path}: its last lines are not in {address.uri} yet; --resume on this"):
        mirror.close(timeout_s=0.2)
    assert mirror._thread.daemon  # the process ends all the same
    gate.open()


@pytest.mark.slow
def test_a_journal_without_a_line_puts_nothing(objects: Objects, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"")
    mirror = Mirror(objects, KEY, allowed)
    mirror.begin(path)
    mirror.close()
    assert objects.names(KEY) == []
    assert mirrored(objects, KEY) == b""


def test_a_journal_that_is_gone_from_this_machine(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "PERIOD_S", 3600.0)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"number": 0}\n')
    mirror = Mirror(objects, KEY, allowed)
    mirror.begin(path)
    with path.open("ab") as file:
        file.write(b'{"number": 1}\n')
    mirror.grown(wait=False)
    path.unlink()
    with pytest.raises(StorageError, match=rf"^{path}: cannot be read \(.*No such file"):
        mirror.close()
