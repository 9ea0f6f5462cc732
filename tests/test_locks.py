"""Locks: one holder at a time, gone with its process, however that ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raydistill.errors import StorageError
from raydistill.locks import hold, holder_of

HOLDER = """
import sys, time
from pathlib import Path
from raydistill.locks import hold
with hold(Path(sys.argv[1]), "it") as held:
    print("held", flush=True)
    while held.ours:
        time.sleep(0.05)
    print("lost", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
def test_a_second_holder_is_told_who_has_it(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(StorageError) as caught, hold(tmp_path / "lock", "this sweep", wait_s=0.3):
        pass
    assert time.monotonic() - start >= 0.3
    assert f"this sweep is in use by process {holder.pid} on " in str(caught.value)
    holder.kill()
    holder.wait()


@pytest.mark.slow
def test_a_killed_holder_leaves_nothing(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.kill()
    with hold(tmp_path / "lock", "this sweep", wait_s=5.0):
        pass
    holder.wait()
    with hold(tmp_path / "lock", "this sweep"):  # and what was held is free again
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"), hold(tmp_path / "file" / "lock", "this sweep"):
        pass


@pytest.mark.slow
def test_a_lock_is_seized_from_a_holder_that_lives_on(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    """As on a machine that was cut off; the one that comes to itself again learns of it."""
    path = tmp_path / "lock"
    with hold(path, "this trial", wait_s=0.2, seize=True) as held:
        assert held.seized
        assert held.ours
        assert holder.stdout is not None
        assert holder.stdout.readline() == "lost\n"
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
        with pytest.raises(StorageError), hold(path, "this trial"):
            pass
    with hold(path, "this trial") as held:  # that the old one still has its own is nothing to us
        assert not held.seized
    assert list(tmp_path.iterdir()) == [path]
    holder.kill()
    holder.wait()


def test_a_free_lock_is_not_seized(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", "this trial", seize=True) as held:
        assert not held.seized


@pytest.mark.slow
def test_who_waits_while_the_lock_is_seized_waits_for_the_new_one(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    path = tmp_path / "lock"
    waiting = subprocess.Popen(
        [sys.executable, "-c", HOLDER.replace('"it"', '"it", 60.0'), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with hold(path, "this trial", seize=True):
        holder.kill()
        holder.wait()
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=1.0)
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "held\n"
    waiting.kill()
    waiting.wait()


def test_whose_machine_has_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder_of(path) == ""
    with hold(path, "this trial"):
        assert holder_of(path) == socket.gethostname()
