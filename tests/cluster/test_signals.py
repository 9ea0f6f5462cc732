"""Ray's handlers are kept out while it starts or ends."""

from __future__ import annotations

import signal
import threading

import ray

from raydistill.cluster.signals import own_signals


def ours(number: int, frame: object) -> None:
    raise AssertionError("it is called")


def test_handlers_are_put_back_whatever_the_block_has_set() -> None:
    before = {number: signal.signal(number, ours) for number in (signal.SIGTERM, signal.SIGHUP)}
    setter, made = ray._private.utils.set_sigterm_handler, ray._raylet.CoreWorker
    try:
        with own_signals():
            ray._private.utils.set_sigterm_handler(lambda *_: None)
            assert signal.getsignal(signal.SIGTERM) is ours, "Ray's own way to set one does nothing"
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert signal.getsignal(signal.SIGHUP) is ours
        assert (ray._private.utils.set_sigterm_handler, ray._raylet.CoreWorker) == (setter, made)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_off_the_main_thread_nothing_is_touched() -> None:
    setter = ray._private.utils.set_sigterm_handler
    seen: list[object] = []

    def run() -> None:
        with own_signals():
            seen.append(ray._private.utils.set_sigterm_handler)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [setter]
