"""Who may write where in a bucket: an object that its holder renews, since a bucket has no locks.

What it guards: a second driver is refused while the first one lives, wherever the two run; a driver or a trial that was
cut off, and believed dead, stops at its next write once another has taken its place. What it does not: between the look
at the lease and the write that follows lie milliseconds in which another may take it. No file is torn by that, for
objects are replaced whole; and a sweep's journal cannot be mixed, for each driver writes one of its own (`mirror`).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator

from raydistill.errors import ABSENT, Fault, StorageError
from raydistill.storage.objects import Objects

LEASE_S = 45.0
"""A holder that has not renewed its lease for so long is dead, or might as well be."""

RENEW_S = 10.0
_LOOK_S = 2.0
_LET_GO_S = 3.0
_SETTLE_S = 1.0
"""Two that take a lease at once have both written by then; the last one has it."""


class Lease:
    """key: the object. what: the thing that is guarded, for errors. place: the working copy from which it is taken;
    who holds the locks in there knows that an earlier holder from there is dead.
    """

    def __init__(self, objects: Objects, key: str, what: str, place: str) -> None:
        self._objects, self._key, self._what, self._place = objects, key, what, place
        self._token = secrets.token_hex(8)
        self._version: str | None = None
        self._renewals = 0
        self._lost = ""

    def seize(self) -> None:
        """Take it, whoever has it. A former holder learns of that from `check`."""
        self._write()
        self._read_back()

    def take(self, wait_s: float, tell: Callable[[str], None]) -> None:
        """Take it when it is free, or its holder dead; a living holder is waited for up to `wait_s` seconds.

        Raises:
            StorageError: a living one holds it.
        """
        deadline, told, seen = time.monotonic() + wait_s, False, None
        while True:
            found = self._objects.get(self._key)
            if found is None:
                break
            content, version = found
            holder = _parse(content)
            if holder.get("place") == self._place:
                break
            renewed = seen is not None and version != seen
            if renewed and time.monotonic() >= deadline:
                raise self._in_use(holder)
            if self._age_s() > LEASE_S:
                break
            if not told:
                tell(f"{self._what} was in use by {_who(holder)} until just now: waiting whether it still is")
                told = True
            seen = version
            time.sleep(_LOOK_S)
        self._write()
        time.sleep(_SETTLE_S)
        self._read_back()
        if self._lost:
            raise StorageError(Fault(self._uri, self._lost, ABSENT, "start one of the two only"))

    def check(self) -> None:
        """Raises StorageError if another has it now."""
        if not self._lost and self._objects.version(self._key) != self._version:
            self._read_back()
        self.check_renewed()

    def check_renewed(self) -> None:
        """`check`, as of the last renewal."""
        if self._lost:
            raise StorageError(Fault(self._uri, self._lost, ABSENT, "nothing more is written there from here"))

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew it while the block runs, then let it go."""
        ended = threading.Event()
        brief = self._objects.briefly(RENEW_S)  # an outage is tried again at the next turn

        def renew() -> None:
            while not ended.wait(RENEW_S) and not self._lost:
                with contextlib.suppress(StorageError):  # who is cut off too long loses it
                    self._read_back(brief)
                    if not self._lost:
                        self._write(brief)
                        self._read_back(brief)

        thread = threading.Thread(target=renew, name="raydistill-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(_LET_GO_S)  # else it might write it again
            if not thread.is_alive():  # cut off: it runs out by itself
                letting = threading.Thread(target=self._let_go, daemon=True)
                letting.start()
                letting.join(_LET_GO_S)  # a service that hangs must not keep who wants to quit

    def _let_go(self) -> None:
        objects = self._objects.briefly(_LET_GO_S)
        with contextlib.suppress(StorageError):
            self._read_back(objects)
            if not self._lost and self._version is not None:
                objects.delete(self._key)

    @property
    def _uri(self) -> str:
        return f"{self._objects.address.uri}/{self._key}"

    def _write(self, objects: Objects | None = None) -> None:
        who = f"process {os.getpid()} on {socket.gethostname()}"
        content = {"token": self._token, "who": who, "place": self._place, "renewals": self._renewals}
        self._renewals += 1
        (objects or self._objects).put(self._key, json.dumps(content).encode())

    def _read_back(self, objects: Objects | None = None) -> None:
        found = (objects or self._objects).get(self._key)
        if found is None:  # somebody removed it: that takes nothing from us
            self._version = None
            return
        content, version = found
        holder = _parse(content)
        if holder.get("token") == self._token:
            self._version = version
        else:
            self._lost = f"{self._what} has been taken over by {_who(holder)}"

    def _age_s(self) -> float:
        """How long ago it was written; both times are the service's, our clock may be wrong."""
        clock = f"{self._key}-{self._token}"
        self._objects.put(clock, b"")
        now, then = self._objects.written(clock), self._objects.written(self._key)
        self._objects.delete(clock)
        return (now - then).total_seconds() if now is not None and then is not None else 0.0

    def _in_use(self, holder: dict[str, str]) -> StorageError:
        way_out = "wait for it to end, or use another --name"
        return StorageError(Fault(self._uri, f"{self._what} is in use by {_who(holder)}", ABSENT, way_out))


def _parse(content: bytes) -> dict[str, str]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _who(holder: dict[str, str]) -> str:
    return str(holder.get("who", "another process"))
