"""What a process of Ray's left behind as it died, read from its own log on its node.

Ray itself knows no more than that a connection broke: it lets the operating system bury its processes, exit codes and
all, and then guesses at memory. But a fatal signal leaves a stack of Python's there (Ray turns faulthandler on),
`os._exit` leaves one in a `witnessed` block, and of the kernel's kills there is a count.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import ray

import raydistill
from raydistill.cluster.survey import alive, on

_ANSWER_S = 30.0
"""For another node: a process has to be started there."""

_READ = 4 * 2**20
"""Bytes from a log's end: the model may have printed a lot."""

_BEGUN = "raydistill: begun, the kernel has killed "
_EXIT = "raydistill: ended by os._exit("
_BEGUN_LINE = re.compile(re.escape(_BEGUN) + r"(\d+)")
_EXIT_LINE = re.compile(re.escape(_EXIT) + r"(.*)\)")
_CODE = re.compile(r"Worker exits with an exit code (\d+)")
_FATAL = re.compile(r"^Fatal Python error: (.+)$|^\*\*\* (SIG[A-Z]+) received", re.MULTILINE)
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)


@dataclass(frozen=True)
class LastWords:
    """text: how a process ended, as in "it ended itself ..."; "": it left no word. oom_killed: it left none, and the
    kernel of its machine has killed some process for want of memory since it began."""

    text: str = ""
    oom_killed: bool = False


@contextlib.contextmanager
def witnessed() -> Iterator[None]:
    """Should this process die in the block, its log tells how. Children that were forked in it are not its concern:
    they end by `os._exit` as a rule."""
    before, own = os._exit, os.getpid()

    def leave(status: int) -> NoReturn:
        if os.getpid() == own:
            _say(f"{_EXIT}{status!r})")
            faulthandler.dump_traceback(2, all_threads=False)
        before(status)

    if not faulthandler.is_enabled():
        faulthandler.enable(2, all_threads=False)
    _say(f"{_BEGUN}{oom_kills()}")
    os._exit = leave
    try:
        yield
    finally:
        os._exit = before


def last_words(address: str, pid: int) -> LastWords:
    """Of a process that has died on the node at an IP address; nothing is known where that does not say in time."""
    node = ray._private.worker._global_node
    if address == node.node_ip_address:
        return read_words(Path(node.get_logs_dir_path()), pid)
    return words_there(address, pid)


def words_there(address: str, pid: int) -> LastWords:
    """As `last_words`, read by a process on that node."""
    task = ray.remote(num_cpus=0, max_retries=0)(_on_its_node)
    nodes = [node["NodeID"] for node in alive() if node["NodeManagerAddress"] == address]
    asked = [task.options(scheduling_strategy=on(node)).remote(pid) for node in nodes]
    answered, _ = ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_S) if asked else ([], [])
    for answer in answered:
        with contextlib.suppress(ray.exceptions.RayError):
            return LastWords(*ray.get(answer))
    return LastWords()


def read_words(logs: Path, pid: int) -> LastWords:
    """From the folder of a Ray's logs on this machine."""
    log = max(logs.glob(f"worker-*-{pid}.err"), key=lambda path: path.stat().st_mtime, default=None)
    if log is None:
        return LastWords()
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - _READ))
        said = file.read().decode(errors="replace")
    begun = list(_BEGUN_LINE.finditer(said))
    if begun:
        said = said[begun[-1].end() :]  # a process serves one trial after the other
    text = _told(said)
    return LastWords(text, not text and bool(begun) and oom_kills() > int(begun[-1][1]))


def ended(account: str) -> str:
    """How a process ended that left no word, from Ray's account of it."""
    if "receives a SIGTERM" in account:
        return "was ended from outside (SIGTERM)"
    code = _CODE.search(account)
    if code:
        return f"ended with exit code {code[1]}; look at the model's code for what ends it"
    return (
        "died without a word: killed from outside (SIGKILL; dmesg tells if it was the kernel), or ended by native code "
        "that the model calls"
    )


def oom_kills() -> int:
    """How many processes this machine's kernel has killed for want of memory; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _told(said: str) -> str:
    left = _EXIT_LINE.search(said)
    if left:
        return f"ended itself by os._exit({left[1]}){_where(said[left.end() :])}; raise an error there instead"
    fatal = list(_FATAL.finditer(said))  # Ray's own handler speaks first, Python's says more
    if fatal:
        where = _where(said[fatal[-1].end() :])
        way_out = "look at the model's code there" if where else "none of the model's Python code stands in its stack"
        return f"crashed ({fatal[-1][1] or fatal[-1][2]}){where}; {way_out}"
    return ""


def _where(stack: str) -> str:
    """The innermost code that is no library's; "" where the stack has none."""
    libraries = (*sysconfig.get_paths().values(), str(Path(raydistill.__file__).parent), "<")
    for path, line, name in _FRAME.findall(stack):
        if not path.startswith(libraries):
            return f" in {path}, line {line}, in {name}"
    return ""


def _say(line: str) -> None:
    """Straight to the log: `sys.stderr` may be another thing by now."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def _on_its_node(pid: int) -> tuple[object, ...]:
    found = read_words(Path(ray._private.worker._global_node.get_logs_dir_path()), pid)
    return found.text, found.oom_killed
