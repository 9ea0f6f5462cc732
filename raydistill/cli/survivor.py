"""A sweep whose process is ended from below still leaves a line and the way to resume.

Ray's library ends its process by `_exit` in the middle of a call once Ray's own process on this machine has gone and
the object store with it, and the kernel ends it where memory runs out: no handler of Python's runs then. So a small
process is forked before anything is loaded. It holds a handle of this one, and speaks if this one ends without having
said that its own last word comes. Process id, exit code, signals and terminal of the command stay as they are.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

_BEGUN, _OVER = b"b", b"o"
_ERROR = (
    "error: the sweep's process was ended from outside or by a library, without a word: Ray ends it so when Ray's own "
    "process on this machine has gone, the kernel when memory runs out (dmesg tells); resume"
)
_SHOW_CURSOR = "\x1b[?25h\n"


class Survivor:
    """What the process that outlives this one is told. pipe: -1: there is none."""

    def __init__(self, pipe: int = -1) -> None:
        self._pipe = pipe

    def begun(self) -> None:
        """There is something to resume."""
        self._tell(_BEGUN)

    def over(self) -> None:
        """This process speaks for itself now, whatever comes."""
        self._tell(_OVER)

    def _tell(self, word: bytes) -> None:
        if self._pipe >= 0:
            with contextlib.suppress(OSError):  # it was killed
                os.write(self._pipe, word)


@contextlib.contextmanager
def outlived(hint: str) -> Iterator[Survivor]:
    """While the block runs. hint: what is printed where there is something to resume.

    Not off the main thread, nor beside other threads: a fork would copy their locks. Nor where the operating system
    has no handles of processes.
    """
    if threading.active_count() > 1 or not hasattr(os, "pidfd_open"):
        yield Survivor()
        return
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        handle = os.pidfd_open(os.getpid())
    except OSError:  # an old kernel, or one that is forbidden to
        yield Survivor()
        return
    hear, speak = os.pipe()
    child = os.fork()
    if child == 0:
        _outlive(handle, hear, speak, hint)
    os.close(handle)
    os.close(hear)
    survivor = Survivor(speak)
    try:
        yield survivor
    finally:
        survivor.over()
        os.close(speak)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def _outlive(handle: int, hear: int, speak: int, hint: str) -> NoReturn:
    try:
        os.close(speak)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # meant for the sweep, which they may take a while to end
        begun, over = _listen(handle, hear)
        if not over:
            if sys.stdout.isatty():
                _write(1, _SHOW_CURSOR)  # it stood in a live table
            _write(1, f"{hint}\n" if begun else "")
            _write(2, f"{_ERROR if begun else _ERROR.removesuffix('; resume')}\n")
    finally:
        os._exit(0)


def _listen(handle: int, hear: int) -> tuple[bool, bool]:
    """(whether there is something to resume, whether the sweep's process has spoken), once it does or has ended."""
    begun = False
    while True:
        ready, _, _ = select.select([handle, hear], [], [])
        if hear in ready:  # first: what was told before the end
            words = os.read(hear, 100)
            begun = begun or _BEGUN in words
            if _OVER in words:
                return begun, True
            if words:
                continue
        if handle in ready:
            return begun, False
        select.select([handle], [], [])  # the pipe is closed: a process that nobody else has one end of is ending


def _write(where: int, text: str) -> None:
    with contextlib.suppress(OSError):  # whoever read it has gone too
        os.write(where, text.encode())
