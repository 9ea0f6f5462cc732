"""A command whose process is ended from below: what outlives it says so, and says nothing else, ever."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

PRELUDE = """
import os, signal, sys, time
from raydistill.cli.survivor import outlived
"""
LIBRARY = "import ctypes; ctypes.CDLL(None)._exit(1)"
ENDED = "error: the sweep's process was ended from outside or by a library, without a word"


def run(code: str, **options: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a process and of what it has left behind, which holds its outputs too."""
    command = [sys.executable, "-c", PRELUDE + code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload]
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(LIBRARY, 1), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)])
def test_the_way_to_resume_is_said_where_there_is_something_to_resume(how: str, code: int) -> None:
    begun = f"with outlived('resume with:\\n  it') as s:\n    s.begun()\n    {how}\n"
    ended, out, err = run(begun)
    assert (ended, out) == (code, "resume with:\n  it\n")
    assert err.startswith(ENDED)
    assert len(err.splitlines()) == 1
    assert err.endswith("; resume\n")
    ended, out, err = run(begun.replace("s.begun()", "pass"))
    assert (ended, out) == (code, "")
    assert err.startswith(ENDED)
    assert "resume" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "status", "shown"),
    [
        ("pass", 0, ""),
        ("sys.exit(2)", 2, ""),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("s.over(); os._exit(2)", 2, ""),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -signal.SIGINT, "KeyboardInterrupt"),
    ],
)
def test_a_process_that_speaks_for_itself_is_left_to_it(code: str, status: int, shown: str) -> None:
    ended, out, err = run(f"with outlived('resume') as s:\n    s.begun()\n    {code}\n")
    assert (ended, out) == (status, "")
    assert shown in err
    assert ENDED not in err


@pytest.mark.slow
def test_after_the_block_there_is_nothing_left() -> None:
    """Of a program that goes on, as a notebook does."""
    code = (
        "import psutil\nwith outlived('resume') as s:\n    print(len(psutil.Process().children()))\n"
        f"print(len(psutil.Process().children()), flush=True)\n{LIBRARY}\n"
    )
    assert run(code) == (1, "1\n0\n", "")


@pytest.mark.slow
def test_no_fork_beside_other_threads() -> None:
    code = (
        "import psutil, threading\nthreading.Thread(target=time.sleep, args=(1,)).start()\n"
        "with outlived('resume') as s:\n    s.begun()\n    print(len(psutil.Process().children()))\n"
    )
    assert run(code) == (0, "0\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_sent_to_all_of_a_group_does_not_end_it(number: int) -> None:
    """By a terminal, systemd or timeout: the sweep takes its time to end, and may be killed in it."""
    code = (
        f"signal.signal({number}, lambda *_: None)\n"
        "with outlived('the way') as s:\n    s.begun()\n    time.sleep(0.3)\n"
        f"    os.killpg(0, {number})\n    time.sleep(0.3)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended, out, err = run(code, start_new_session=True)
    assert (ended, out) == (-signal.SIGKILL, "the way\n")
    assert err.startswith(ENDED)


@pytest.mark.slow
def test_a_terminal_gets_its_cursor_back() -> None:
    reader, writer = pty.openpty()
    code = (
        PRELUDE + f"with outlived('the way') as s:\n    s.begun()\n    print('\\x1b[?25l', flush=True)\n    {LIBRARY}\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=writer, stderr=writer)
    os.close(writer)
    assert process.wait(timeout=300) == 1
    shown = b""
    while b"resume" not in shown:
        shown += os.read(reader, 10_000)
    os.close(reader)
    assert shown.index(b"\x1b[?25l") < shown.index(b"\x1b[?25h") < shown.index(b"the way") < shown.index(ENDED.encode())
