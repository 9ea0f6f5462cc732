"""Is the Ray that a command runs on still there? When it has gone, the command ends with a line and can be resumed.

Ray does not tell: its calls wait inside its library, where no signal and no exception reaches them, and a minute after
the head has gone it ends the process by itself, with a paragraph of its own. Here a thread looks every few seconds.
When Ray stays away, that thread sees to what has to be closed and said, while the main thread is kept from going on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import ray

from raydistill.errors import ABSENT, Fault, RayLostError

GONE_S = 20.0
"""How long Ray may stay away. Heads that keep their state elsewhere come back; after 60 s Ray ends the process."""

_LATEST_S = 40.0
"""By then it is said in any case, also where the main thread is busy with something of ours."""

_LOOK_S = 2.0
_SIGNAL = signal.SIGUSR2


class RayGone(BaseException):
    """Raised in the main thread, once `on_lost` has been called and has not ended the process.

    No `Exception`, so that neither Ray's code nor a user's takes it for one of its own.
    """

    def __init__(self, error: RayLostError) -> None:
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def watched(where: str, on_lost: Callable[[RayLostError], None]) -> Iterator[None]:
    """While the block runs: when Ray has gone, call `on_lost` on another thread, then raise `RayGone` in the block.

    where: what the user calls this Ray, for the line. The main thread stands still inside Ray while `on_lost` runs, and
    may do so until Ray ends the process: `on_lost` had better end it. Off the main thread nothing is watched.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _Watch(where, on_lost)

    def stand_still(number: int, frame: FrameType | None) -> None:
        if watch.over.is_set() or not _inside_ray(frame):
            return
        watch.done.wait()
        watch.over.set()
        raise RayGone(watch.error) from None

    before = signal.signal(_SIGNAL, stand_still)
    watch.start()
    try:
        yield
    finally:
        watch.over.set()
        signal.signal(_SIGNAL, before)


def _inside_ray(frame: FrameType | None) -> bool:
    """Whether it is Ray that runs there, and not something of ours that Ray has called, or that calls nobody."""
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in ("ray", "raydistill"):
            return package == "ray"
        frame = frame.f_back
    return False


class _Watch(threading.Thread):
    """over: nothing is watched any more. done: `on_lost` has returned."""

    def __init__(self, where: str, on_lost: Callable[[RayLostError], None]) -> None:
        super().__init__(name="raydistill-watch", daemon=True)
        node = ray._private.worker._global_node
        host, _, port = node.gcs_address.rpartition(":")
        self.over, self.done = threading.Event(), threading.Event()
        self.error = RayLostError(Fault(where, "has gone"))
        self._where, self._on_lost = where, on_lost
        self._head = (host.strip("[]"), int(port))
        self._raylet = str(node.raylet_socket_name)
        self._session = str(node.session_name)
        self._raylet_process = _handle_of_raylet(node)
        self._ended = self._dead = False

    def run(self) -> None:
        seen, what = time.monotonic(), ""
        while not self._rest(0.5 if self._ended else _LOOK_S):
            before, what = what, self._away()
            if not what and before and self._another():
                what = "was started again: what ran on it has gone"
                break
            if not what:
                seen = time.monotonic()
            elif self._dead or (self._ended and before):
                break  # twice in a row; it does not come back, and Ray itself ends the process before long
            elif time.monotonic() - seen > GONE_S:
                break
        way_out = "start it again if it is yours, then resume"
        self.error = RayLostError(Fault(self._where, what, ABSENT, way_out))
        self._hold_main(seen + _LATEST_S)
        if self._raylet_process >= 0:
            os.close(self._raylet_process)
        if not self.over.is_set():
            self._on_lost(self.error)
            self.done.set()

    def _rest(self, seconds: float) -> bool:
        """Until the next look; whether nothing is watched any more. The end of a Ray of our own is noticed at once: the
        first call that reaches for its object store after that ends this process, without a word."""
        until = time.monotonic() + seconds
        while self._raylet_process >= 0 and not self._dead and (left := until - time.monotonic()) > 0:
            self._dead = bool(select.select([self._raylet_process], [], [], min(left, 0.1))[0])
            if self._dead or self.over.is_set():
                return self.over.is_set()
        return self.over.wait(max(0.0, until - time.monotonic()))

    def _hold_main(self, until: float) -> None:
        """Wait until the main thread is inside Ray, and let it not come out of it."""
        main = threading.main_thread().ident or 0
        while not self.over.is_set() and time.monotonic() < until:
            signal.pthread_kill(main, _SIGNAL)
            self.over.wait(0.5)
            if _inside_ray(sys._current_frames().get(main)) or _standing(sys._current_frames().get(main)):
                return

    def _away(self) -> str:
        """What does not answer, in words; "" if all does."""
        self._ended = False
        try:
            socket.create_connection(self._head, timeout=_LOOK_S).close()
        except OSError as error:
            return f"its head does not answer any more ({error.strerror or error})"
        with socket.socket(socket.AF_UNIX) as raylet:
            raylet.settimeout(_LOOK_S)
            try:
                raylet.connect(self._raylet)
            except OSError as error:
                self._ended = isinstance(error, ConnectionRefusedError | FileNotFoundError)
                return f"its process on this machine has ended ({error.strerror or error})"
        return ""

    def _another(self) -> bool:
        """Whether the head that answers now is of another session than the one that was joined."""
        try:
            client = ray._raylet.GcsClient(address=":".join(map(str, self._head)))
            name = client.internal_kv_get(b"session_name", namespace=b"session", timeout=_LOOK_S)
        except (ray.exceptions.RayError, RuntimeError, TimeoutError):
            return False  # it is asked again
        return bool(name) and name.decode() != self._session


def _handle_of_raylet(node: Any) -> int:
    """A handle that is readable once it has ended; -1 where it was not started here, or there are no such handles."""
    try:
        return os.pidfd_open(node.all_processes["raylet"][0].process.pid)
    except (AttributeError, KeyError, IndexError, OSError):
        return -1


def _standing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "stand_still":
        frame = frame.f_back
    return frame is not None
