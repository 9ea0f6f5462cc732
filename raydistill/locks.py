"""Advisory file locks that the operating system drops when their holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raydistill.errors import ABSENT, Fault, StorageError
from raydistill.files import unwritable

LOCK = "lock"
"""The lock file of a folder."""


@dataclass(frozen=True)
class Held:
    """A lock that was taken. seized: from a holder that had not let it go."""

    path: Path
    file: int
    seized: bool = False

    @property
    def ours(self) -> bool:
        """False: another process has seized it since, and believes us dead."""
        try:
            return os.path.samestat(os.fstat(self.file), os.stat(self.path))
        except OSError:
            return True  # whoever removed the file took nothing from us


@contextlib.contextmanager
def hold(path: Path, what: str, wait_s: float = 0.0, *, seize: bool = False) -> Iterator[Held]:
    """Hold the lock file at `path`; wait up to `wait_s` seconds for its present holder.

    what: the thing that is locked, for the error ("this sweep"). seize: take it from a holder that has not let it go in
    that time. It may live on where nothing reaches it, on a machine that was cut off; it has to ask `Held.ours` before
    it does what only a holder may.

    Raises:
        StorageError: someone else still holds it, or the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = _acquire(path, what, time.monotonic() + wait_s, seize)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        with contextlib.suppress(OSError):  # who holds it is a courtesy: on a full disk the lock is held all the same
            os.truncate(held.file, 0)
            os.pwrite(held.file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield held
    finally:
        os.close(held.file)  # drops the lock


def holder_of(path: Path) -> str:
    """The machine whose process has, or had, the lock; "" if nobody ever did."""
    try:
        return path.read_text(errors="replace").strip().rpartition(" on ")[2]
    except OSError:
        return ""


def _acquire(path: Path, what: str, deadline: float, seize: bool) -> Held:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline and not seize:
                holder = os.pread(file, 200, 0).decode(errors="replace").strip() or "another process"
                os.close(file)
                way_out = "wait for it to end, or use another --name"
                raise StorageError(Fault(str(path), f"{what} is in use by {holder}", ABSENT, way_out)) from error
            os.close(file)
            if time.monotonic() >= deadline:
                return _seize(path)
            time.sleep(0.1)
            continue
        held = Held(path, file)
        if held.ours:
            return held
        os.close(file)  # it was seized between our opening and our locking it


def _seize(path: Path) -> Held:
    """Put a new file that we hold into the place of the old one, whose lock then guards nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.replace(temporary, path)
    except OSError:
        os.close(file)
        temporary.unlink(missing_ok=True)
        raise
    return Held(path, file, seized=True)
