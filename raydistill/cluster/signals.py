"""Ray takes SIGTERM for itself when it starts: with a handler of Python's, and with one below it that prints a stack
and aborts. A driver of ours ends in its own way.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import ray

_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Handlers stay as they are while Ray starts or ends in the block, and after it.

    Ray's own names are used where they are as in Ray 2.60; where they are not, handlers are put back at the end only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _OURS}

    def put_back() -> None:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)  # anew, also where Python knows of no change

    utils, below = ray._private.utils, ray._raylet
    setter, made = getattr(utils, "set_sigterm_handler", None), getattr(below, "CoreWorker", None)

    def make(*arguments: object, **options: object) -> object:
        assert made is not None
        worker = made(*arguments, **options)  # this is where the handler below Python is set
        put_back()
        return worker

    node = ray._private.worker._global_node
    ends = getattr(node, "kill_all_processes", None)

    def end(*arguments: object, **options: object) -> object:
        assert ends is not None
        put_back()  # what lies below has just left them to the operating system, and this takes seconds
        return ends(*arguments, **options)

    try:
        if ends is not None:
            node.kill_all_processes = end
        if setter is not None and made is not None:
            utils.set_sigterm_handler, below.CoreWorker = (lambda handler: None), make
        yield
    finally:
        if setter is not None and made is not None:
            utils.set_sigterm_handler, below.CoreWorker = setter, made
        put_back()
