"""A journal in a bucket: the local file's lines, in numbered pieces, from a background thread.

Objects cannot be appended to: the last piece is replaced while it grows, to `PIECE_BYTES`; then the next one begins. A
put is all or nothing, so that no piece is ever half. Each driver writes a *generation* of its own, which begins with
all that it found; the highest one counts. So a driver that was believed dead can spoil nothing: what it still writes
belongs to a generation that nobody reads any more.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from raydistill.errors import ABSENT, Fault, StorageError
from raydistill.storage.objects import Objects
from raydistill.storage.store import JournalListener

PIECE_BYTES = 256 * 1024
PERIOD_S = 1.0
"""Between two puts, unless somebody waits: what the bucket lacks when this machine dies."""

_GENERATION = re.compile(r"(\d{6})-[0-9a-f]{8}")


def mirrored(objects: Objects, key: str) -> bytes:
    """The journal as it is in the bucket, whole lines; b"" where there is none.

    Raises:
        StorageError: a piece is missing, or it cannot be read.
    """
    generations = _generations(objects, key)
    if not generations:
        return b""
    pieces = generations[max(generations)]
    content = b""
    for number, piece in enumerate(pieces):  # in order: a next piece is begun when the one before it is whole
        found = objects.get(piece)
        if found is None or piece != _piece(piece.rpartition("/")[0], number):
            where = f"{objects.address.uri}/{piece.rpartition('/')[0]}"
            raise StorageError(Fault(where, f"piece {number} of the journal is missing", ABSENT, "bring it back"))
        content += found[0]
    return content


class Mirror(JournalListener):
    """key: where the journal goes. allowed: raises StorageError if another driver has taken over."""

    def __init__(self, objects: Objects, key: str, allowed: Callable[[], None]) -> None:
        self._objects, self._key, self._allowed = objects, key, allowed
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="raydistill-mirror", daemon=True)
        self._path = Path()
        self._generation = ""
        self._piece_number, self._piece_start = 0, 0
        self._asked, self._sent, self._urgent = 0, 0, 0  # bytes of the file
        self._closing = False
        self._error: StorageError | None = None

    def begin(self, path: Path) -> None:
        self._path = path
        before = _generations(self._objects, self._key)
        number = int(max(before)[:6]) + 1 if before else 1
        self._generation = f"{self._key}/{number:06d}-{secrets.token_hex(4)}"
        self._thread.start()
        if path.stat().st_size:
            self.grown(wait=True)
            with contextlib.suppress(StorageError):  # it takes some room, no more
                self._objects.delete(*(piece for pieces in before.values() for piece in pieces))

    def grown(self, wait: bool) -> None:
        with self._changed:
            self._raise_error()
            self._asked = end = self._path.stat().st_size
            if wait:
                self._urgent = end
            self._changed.notify_all()
            while wait and self._sent < end:
                self._changed.wait()
                self._raise_error()

    def close(self, timeout_s: float | None = None) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            if self._error is None and self._sent < self._asked:
                rule = f"its last lines are not in {self._objects.address.uri} yet"
                self._error = StorageError(Fault(str(self._path), rule, ABSENT, "--resume on this machine sends them"))
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise StorageError(*self._error.faults) from self._error

    def _loop(self) -> None:
        due = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._asked > self._sent)
                self._changed.wait_for(lambda: self._closing or self._urgent > self._sent, due - time.monotonic())
                if self._asked <= self._sent:
                    return
            try:
                self._send()
            except (StorageError, OSError) as error:
                with self._changed:
                    fault = Fault(str(self._path), f"cannot be read ({error})")
                    self._error = error if isinstance(error, StorageError) else StorageError(fault)
                    self._changed.notify_all()
                return
            due = time.monotonic() + PERIOD_S

    def _send(self) -> None:
        """Put the last piece, with what has been added to it, and the pieces after it."""
        self._allowed()
        with self._path.open("rb") as file:
            file.seek(self._piece_start)
            content = file.read()
        content = content[: content.rfind(b"\n") + 1]  # the driver may be writing a line just now
        self._objects.put(_piece(self._generation, self._piece_number), content)
        sent = self._piece_start + len(content)
        if len(content) >= PIECE_BYTES:
            self._piece_number, self._piece_start = self._piece_number + 1, sent
        with self._changed:
            self._sent = sent
            self._changed.notify_all()


def _piece(generation: str, number: int) -> str:
    return f"{generation}/{number:06d}.jsonl"


def _generations(objects: Objects, key: str) -> dict[str, list[str]]:
    """The pieces of each generation that has a first one, by its folder's name."""
    found: dict[str, list[str]] = {}
    for name in objects.names(key):
        folder, _, _ = name.removeprefix(f"{key}/").partition("/")
        if _GENERATION.fullmatch(folder):
            found.setdefault(folder, []).append(name)
    return {folder: pieces for folder, pieces in found.items() if pieces[0] == _piece(f"{key}/{folder}", 0)}
