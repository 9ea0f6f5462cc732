"""Advisory file locks that the operating system drops when their holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from raydistill.errors import ABSENT, Fault, StorageError
from raydistill.files import unwritable


@contextlib.contextmanager
def hold(path: Path, what: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file at `path`; wait up to `wait_s` seconds for its present holder.

    what: the thing that is locked, for the error ("this sweep").

    Raises:
        StorageError: someone else still holds it, or the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        _acquire(file, path, what, time.monotonic() + wait_s)
        with contextlib.suppress(OSError):  # who holds it is a courtesy: on a full disk the lock is held all the same
            os.truncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(file)  # drops the lock


def _acquire(file: int, path: Path, what: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                holder = os.pread(file, 200, 0).decode(errors="replace").strip() or "another process"
                way_out = "wait for it to end, or use another --name"
                raise StorageError(Fault(str(path), f"{what} is in use by {holder}", ABSENT, way_out)) from error
            time.sleep(0.1)
        else:
            return
