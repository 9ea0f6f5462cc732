"""What the first worker's folder has, the driver's has too; killed workers' folders do not pile up."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from raydistill.cluster.parcels import Outbox, private_folder, unpack
from raydistill.errors import StorageError


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("worker", "driver"):
        (tmp_path / name).mkdir()
    return tmp_path / "worker", tmp_path / "driver"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_what_has_changed_travels_and_events_only_with_their_new_end(folders: tuple[Path, Path]) -> None:
    worker, driver = folders
    (worker / "checkpoint.pt").write_bytes(b"of the start")
    outbox = Outbox(worker)
    assert not outbox.changed()  # the driver has that
    (worker / "schedule.yaml").write_text("pruners")
    with (worker / "events.out.tfevents.1.host").open("wb", buffering=0) as events:
        for epoch in range(3):
            events.write(b"epoch %d;" % epoch)
            (worker / "checkpoint.pt").write_bytes(b"of epoch %d" % epoch)
            parcel = outbox.changed()
            names = {"checkpoint.pt", "events.out.tfevents.1.host", *(["schedule.yaml"] if epoch == 0 else [])}
            assert set(parcel) == names
            assert parcel["events.out.tfevents.1.host"] == (8 * epoch, b"epoch %d;" % epoch)
            unpack(parcel, driver)
            assert content(driver) == content(worker)
    assert not outbox.changed()


def test_the_checkpoint_is_the_last_to_be_there(folders: tuple[Path, Path]) -> None:
    _, driver = folders
    (driver / "sparsity.csv").mkdir()  # in the way
    with pytest.raises(StorageError, match=r"sparsity\.csv: cannot be written"):
        unpack({"checkpoint.pt": (0, b"new"), "sparsity.csv": (0, b"new")}, driver)
    assert not (driver / "checkpoint.pt").exists()


@pytest.mark.slow
def test_a_killed_process_s_folder_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def start() -> tuple[int, Path]:
        """(a process that has a folder of its own until it is killed, that folder)."""
        before = set(tmp_path.iterdir())
        child = os.fork()
        if not child:
            with private_folder():
                signal.pause()
        # its holder writes into the lock that it holds
        while not (made := {path.parent for path in tmp_path.glob("*/lock") if path.read_text()} - before):
            time.sleep(0.01)
        (folder,) = made
        os.utime(folder, (0, 0))  # as if it had been there for long
        return child, folder

    (alive, kept), (dead, left) = start(), start()
    try:
        os.kill(dead, signal.SIGKILL)
        os.waitpid(dead, 0)
        assert left.is_dir()
        with private_folder() as mine:
            assert kept.is_dir()  # its process lives
            assert not left.exists()
            (mine / "checkpoint.pt").write_bytes(b"")
        assert list(tmp_path.iterdir()) == [kept]
    finally:
        os.kill(alive, signal.SIGKILL)
        os.waitpid(alive, 0)


def test_events_in_a_folder_of_the_folder_travel_too(folders: tuple[Path, Path]) -> None:
    worker, driver = folders
    outbox = Outbox(worker)
    (worker / "steps").mkdir()
    (worker / "steps" / "other.bin").write_bytes(b"stays")
    events = worker / "steps" / "events.out.tfevents.1.host"
    for part in (b"one;", b"two;"):
        with events.open("ab") as file:
            file.write(part)
        parcel = outbox.changed()
        assert parcel == {"steps/events.out.tfevents.1.host": (0 if part == b"one;" else 4, part)}
        unpack(parcel, driver)
    assert (driver / "steps" / events.name).read_bytes() == b"one;two;"
    assert [path.name for path in (driver / "steps").iterdir()] == [events.name]
