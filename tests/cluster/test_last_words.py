"""Processes that end in every way there is, and what their logs say of it afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from raydistill.cluster import last_words
from raydistill.cluster.connect import connected
from raydistill.cluster.last_words import LastWords, ended, read_words, witnessed

Die = Callable[[str], LastWords]
PRELUDE = """
import ctypes, os, signal, sys
from raydistill.cluster.last_words import witnessed
print("what the model prints", file=sys.stderr)
"""
WITHOUT_CORES = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"


@pytest.fixture
def die(tmp_path: Path) -> Die:
    """Runs code that ends its process as a worker of Ray's does, its stderr in a log; tells what the log says."""

    def run(code: str) -> LastWords:
        file = tmp_path / "own_model.py"
        file.write_text(WITHOUT_CORES + PRELUDE + code)
        with open(tmp_path / "log", "wb") as log:
            process = subprocess.Popen([sys.executable, str(file)], stderr=log)
            process.wait(timeout=300)
        (tmp_path / "log").rename(tmp_path / f"worker-0ab-01000000-{process.pid}.err")
        return read_words(tmp_path, process.pid)

    return run


def forward(line: str) -> str:
    return f"def forward():\n    {line}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("ctypes.string_at(0)", "crashed (Segmentation fault)"),
        ("os.abort()", "crashed (Aborted)"),
        ("os.kill(os.getpid(), signal.SIGFPE)", "crashed (Floating point exception)"),
        ("os._exit(3)", "ended itself by os._exit(3)"),
        ("os._exit(0)", "ended itself by os._exit(0)"),
    ],
)
def test_what_the_model_did_is_told_with_its_line(line: str, what: str, die: Die, tmp_path: Path) -> None:
    words = die(forward(line) + "with witnessed():\n    forward()\n")
    number = (tmp_path / "own_model.py").read_text().splitlines().index(f"    {line}") + 1
    assert words.text.startswith(f"{what} in {tmp_path}/own_model.py, line {number}, in forward; ")
    assert not words.oom_killed


@pytest.mark.slow
def test_a_crash_in_a_thread_without_python_has_no_line(die: Die) -> None:
    """As in a worker thread of a native library; the main thread's stack would accuse the wrong code."""
    code = (
        "libc = ctypes.CDLL(None)\nthread = ctypes.c_ulong()\n"
        "with witnessed():\n"
        "    libc.pthread_create(ctypes.byref(thread), None, ctypes.cast(libc.abort, ctypes.c_void_p), None)\n"
        "    signal.pause()\n"
    )
    assert die(code).text == "crashed (Aborted); none of the model's Python code stands in its stack"


@pytest.mark.slow
@pytest.mark.parametrize("line", ["os.kill(os.getpid(), signal.SIGKILL)", "ctypes.CDLL(None)._exit(1)", "pass"])
def test_who_says_nothing_is_not_made_to_speak(line: str, die: Die) -> None:
    assert die(forward(line) + "with witnessed():\n    forward()\n") == LastWords()


@pytest.mark.slow
def test_children_that_end_by_exit_are_none_of_it(die: Die) -> None:
    """So do all that multiprocessing forks, as for a loader's workers."""
    assert die("with witnessed():\n    if os.fork() == 0:\n        os._exit(0)\n    os.wait()\n") == LastWords()


@pytest.mark.slow
def test_after_the_block_it_is_forgotten(die: Die) -> None:
    assert die("with witnessed():\n    pass\nos._exit(3)\n") == LastWords()


@pytest.mark.slow
def test_only_the_last_block_of_a_process_counts(die: Die) -> None:
    """A process that serves many trials: the words of a fork's end, or a stack that a model printed, are older."""
    code = (
        "with witnessed():\n    print('Fatal Python error: Segmentation fault', file=sys.stderr)\n"
        "with witnessed():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert die(code) == LastWords()


@pytest.mark.slow
def test_the_kernels_kills_count_from_the_beginning(die: Die, monkeypatch: pytest.MonkeyPatch) -> None:
    now = last_words.oom_kills()
    monkeypatch.setattr(last_words, "oom_kills", lambda: now + 1)
    silent, speaking = "os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)"
    assert die(f"with witnessed():\n    {silent}\n") == LastWords("", oom_killed=True)
    assert not die(f"with witnessed():\n    {speaking}\n").oom_killed  # another process's kill
    assert not die("pass").oom_killed


def test_no_log_is_no_word(tmp_path: Path) -> None:
    assert read_words(tmp_path, 1) == LastWords()


@pytest.mark.parametrize(
    ("account", "told"),
    [
        ("Worker exits with an exit code 1. The process receives a SIGTERM.", "was ended from outside (SIGTERM)"),
        ("Worker exits unexpectedly. Worker exits with an exit code 4.", "ended with exit code 4; "),
        ("(1) the process was killed by the OOM killer due to high memory usage", "died without a word: killed from"),
    ],
)
def test_without_a_word_rays_account_is_read_but_not_its_guesses(account: str, told: str) -> None:
    assert ended(account).startswith(told)
    assert "memory" not in ended(account)


class Mortal:
    def pid(self) -> int:
        return os.getpid()

    def die(self) -> None:
        with witnessed():
            os._exit(9)


@pytest.mark.ray
def test_a_process_of_rays_is_asked_about_here_and_by_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # the process finds `Mortal` there
    with connected(None, 0):
        actor = ray.remote(num_cpus=0)(Mortal).remote()
        pid = ray.get(actor.pid.remote())
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(actor.die.remote())
        address = ray.util.get_node_ip_address()
        for found in (last_words.last_words(address, pid), last_words.words_there(address, pid)):
            assert found.text.startswith(f"ended itself by os._exit(9) in {__file__}, line ")
        assert last_words.last_words("198.51.100.9", pid) == LastWords()  # no such node
