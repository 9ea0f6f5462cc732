"""Ctrl-C and SIGTERM: the first ends a sweep cleanly, the second at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ray import tune


class Interrupt(tune.Stopper):
    """Tune stops all trials at its next step once one of these is True.

    requested: by a signal. halted: by an error that every other trial would meet too.
    """

    def __init__(self) -> None:
        self.requested = False
        self.halted = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.requested or self.halted

    def __deepcopy__(self, memo: dict[int, Any]) -> Interrupt:  # Tune copies what it is given; the flag must stay one
        return self


@contextlib.contextmanager
def interruptible(on_first: Callable[[], None]) -> Iterator[Interrupt]:
    """The first signal sets the flag, the second raises KeyboardInterrupt. Off the main thread: no signals."""
    interrupt = Interrupt()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupt.requested:
            raise KeyboardInterrupt
        interrupt.requested = True
        on_first()

    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
