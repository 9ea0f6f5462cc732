"""The first signal ends a sweep cleanly, the second at once."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from raydistill.sweep.tune import interrupt
from raydistill.sweep.tune.interrupt import Interrupt, interruptible

ENDING = [signal.SIGTERM, signal.SIGHUP]


def send_and_wait(number: int) -> None:
    os.kill(os.getpid(), number)
    for _ in range(2000):
        time.sleep(0.01)  # the handler runs in here


@pytest.mark.parametrize("number", [signal.SIGINT, *ENDING])
def test_at_once_where_nothing_has_begun(number: int) -> None:
    with interruptible(lambda: None) as flag, pytest.raises(KeyboardInterrupt):
        send_and_wait(number)
    assert not flag.requested


@pytest.mark.parametrize("number", ENDING)
def test_who_sends_one_has_not_to_send_a_second(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "HURRY_S", 0.05)
    said: list[str] = []
    with interruptible(lambda: said.append("first")) as flag:
        flag.begun = True
        with pytest.raises(KeyboardInterrupt):
            send_and_wait(number)
    assert (flag.requested, said) == (True, ["first"])
    assert not [t for t in threading.enumerate() if isinstance(t, threading.Timer) and not t.finished.is_set()]


def test_a_person_who_presses_ctrl_c_waits_as_long_as_he_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "HURRY_S", 0.01)
    with interruptible(lambda: None) as flag:
        flag.begun = True
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
    assert flag.requested


@pytest.mark.slow
def test_a_main_thread_that_does_not_hear(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time\nfrom raydistill.sweep.tune import interrupt\n"
        "interrupt.HURRY_S, interrupt.LAST_S = 0.1, 0.3\n"
        "with interrupt.interruptible(lambda: print('first', flush=True), lambda: print('last', flush=True)) as flag:\n"
        "    flag.begun = True\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while True:\n"
        "        try:\n            time.sleep(60)\n"
        "        except KeyboardInterrupt: pass\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout.split()) == (130, ["first", "last"])


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible(lambda: None) as flag:
            flag.begun = True
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert not flag.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_tune_stops_all_trials_at_a_signal_or_at_an_error_of_all_and_copies_no_flag() -> None:
    flag = Interrupt()
    assert copy.deepcopy({"stop": flag})["stop"] is flag
    assert (flag("t0000", {}), flag.stop_all()) == (False, False)
    flag.halted = True
    assert flag.stop_all()
    other = Interrupt()
    other.requested = True
    assert other.stop_all()
    assert not other("t0000", {})
