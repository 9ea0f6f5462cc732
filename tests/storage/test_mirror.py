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
from raydistill.storage.objects import Address, Objects
from raydistill.sweep.journal import Journal

KEY = "tiny/journal"


def allowed() -> None:
    pass


def opened(path: Path, objects: Objects) -> Journal:
    return Journal(path, Mirror(objects, KEY, allowed))


def numbers(content: bytes) -> list[int]:
    return [json.loads(line)["number"] for line in content.splitlines()]


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
    with pytest.raises(StorageError, match="has been taken over"):
        journal.append("epoch", number=2)
    assert numbers(mirrored(objects, KEY)) == [0]
    assert numbers((tmp_path / "journal.jsonl").read_bytes()) == [0, 1, 2]


@pytest.mark.slow
def test_an_outage_holds_up_only_who_waits(address: Address, objects: Objects, gate: Any, tmp_path: Path) -> None:
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
def test_an_outage_that_does_not_end(address: Address, objects: Objects, gate: Any, tmp_path: Path) -> None:
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
