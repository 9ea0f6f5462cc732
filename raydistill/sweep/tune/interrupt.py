"""Ctrl-C, SIGTERM and SIGHUP: the first ends a sweep cleanly, the second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from ray import tune

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HURRY_S, LAST_S = 12.0, 20.0
"""Kubernetes kills 30 s after its SIGTERM, others sooner."""

INTERRUPTED_CODE = 130


class Interrupt(tune.Stopper):
    """Tune stops all trials at its next step once one of these is True.

    begun: there is something to end cleanly. requested: by a signal. halted: by an error that every other trial would
    meet too.
    """

    def __init__(self) -> None:
        self.begun = False
        self.requested = False
        self.halted = False

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.requested or self.halted

    def __deepcopy__(self, memo: dict[int, object]) -> Interrupt:
        return self  # Tune copies what it is given; the flag must stay one


def _nothing() -> None:
    pass


@contextlib.contextmanager
def interruptible(on_first: Callable[[], None], on_last: Callable[[], None] = _nothing) -> Iterator[Interrupt]:
    """The first signal sets the flag, the second raises KeyboardInterrupt; so does the first where nothing has begun.

    Whoever sends SIGTERM or SIGHUP does not wait for long: `HURRY_S` after it the second signal is given for him. If
    the main thread hears that neither, `on_last` is called from another one `LAST_S` after the first, and the process
    ends there and then. Off the main thread: no signals.
    """
    interrupt = Interrupt()
    timers: list[threading.Timer] = []

    def hurry(seconds: float, act: Callable[[], None]) -> None:
        timers.append(threading.Timer(seconds, act))
        timers[-1].daemon = True
        timers[-1].start()

    def end() -> None:
        on_last()
        os._exit(INTERRUPTED_CODE)

    def handle(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT and not timers:
            hurry(HURRY_S, lambda: os.kill(os.getpid(), signal.SIGTERM))
            hurry(LAST_S, end)
        if interrupt.requested or not interrupt.begun:
            raise KeyboardInterrupt
        interrupt.requested = True
        on_first()

    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number in SIGNALS if before[number] != signal.SIG_IGN or number != signal.SIGHUP]  # nohup
    for number in heard:
        signal.signal(number, handle)
    try:
        yield interrupt
    finally:
        for timer in timers:
            timer.cancel()
        for number in heard:
            signal.signal(number, before[number])
