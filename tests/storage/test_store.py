"""A shared folder as a store."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from raydistill.errors import StorageError
from raydistill.storage.store import Folder, JournalListener, read_or_nothing


def test_a_reference_is_the_path(tmp_path: Path) -> None:
    store = pickle.loads(pickle.dumps(Folder(tmp_path)))  # it travels to workers
    path = tmp_path / "a" / "checkpoint.pt"
    reference = store.reference(path)
    assert (reference, store.local(reference), store.fetched(reference)) == (str(path), path, path)
    assert (store.shown, store.outlives_this_machine, store.given("own.pt")) == (str(tmp_path), False, "own.pt")
    assert not store.exists(reference)
    path.parent.mkdir()
    path.write_bytes(b"x")
    assert store.exists(reference)
    with store.lent(reference) as lent:
        assert lent.read_bytes() == b"x"


def test_a_journal_is_read_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b"line\n")
    assert Folder(tmp_path).content(tmp_path / "journal") == b"line\n"
    assert read_or_nothing(tmp_path / "none") == b""
    with pytest.raises(StorageError, match="cannot be read"):
        read_or_nothing(tmp_path)


def test_one_driver_at_a_time(tmp_path: Path) -> None:
    store, journal = Folder(tmp_path), tmp_path / "sweep" / "journal"
    journal.parent.mkdir()
    with store.held(journal, "sweep x", print) as listener:
        assert type(listener) is JournalListener
        second = store.held(journal, "sweep x", print)
        with pytest.raises(StorageError, match="sweep x"):
            second.__enter__()
    with store.held(journal, "sweep x", print):
        pass


def test_a_workplace_is_ours_until_another_takes_it(tmp_path: Path) -> None:
    with Folder(tmp_path).workplace(str(tmp_path), "trial t0", 0.0) as place:
        assert (place.folder, place.ours) == (tmp_path, True)
        place.push()
