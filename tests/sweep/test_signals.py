"""SIGTERM and SIGHUP end a command as Ctrl-C does, whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.records import RUNNING
from raydistill.sweep.record.journal import read_journal
from raydistill.sweep.tune import interrupt
from raydistill.sweep.tune.interrupt import interruptible
from tests.sweep.test_warm_run import RUN

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


class Command:
    """A command whose lines can be waited for."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"}
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [*RUN, *arguments], cwd=folder, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def until(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return
        raise AssertionError("".join(self.lines))

    def end(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        self.lines += self.process.stdout.readlines()
        return self.process.wait(timeout=300), "".join(self.lines)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("words", ["loading digits", "starting Ray", "trials of 500 epochs"])
def test_a_sweep(number: int, words: str, write_sweep: Callable[..., Path], tmp_path: Path, spared: None) -> None:
    write_sweep(("training/epochs", 500))
    sweep = Command(tmp_path, "sweep", "space.yaml", "--cpu")
    sweep.until(words)
    sweep.process.send_signal(number)
    code, shown = sweep.end()
    assert code == 130, shown
    for word in ("Traceback", "received at time", "Stack", "core_worker"):
        assert word not in shown
    journal = tmp_path / "sweeps" / "tiny" / "journal.jsonl"
    if "trials" in words:
        assert "resume with:\n  raydistill sweep space.yaml --cpu --resume" in shown
        assert not [r for r in read_journal(journal).records.values() if r.state == RUNNING]
    else:
        assert not journal.exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDING)
def test_a_single_run(number: int, tmp_path: Path) -> None:
    run = Command(
        tmp_path, "compress", "--arch", "simplenet_cifar", "--dataset", "digits", "--epochs", "999", "--no-mlflow"
    )
    run.until("1/999")
    run.process.send_signal(number)
    code, shown = run.end()
    assert code == 130, shown
    assert "interrupted" in shown
    assert "Traceback" not in shown
