"""Clusters of several nodes on this machine, with their own ports and folder; they end with the test."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
RUN = "import sys; sys.argv[0] = 'raydistill'; from raydistill.cli.main import run; run()"
UP_S = 240.0
TRIES = 4
"""Ray gives a node 30 s to start, fixed in its code: too little on a busy machine."""


class RayCluster:
    """A head, and more nodes, each started by ``ray start`` as a user would; `kill` one or end them all."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))  # short: sockets have short names
        self.address = ""
        self._nodes: list[subprocess.Popen[bytes]] = []

    def head(self, *options: str, port: int = 0, **environment: str) -> subprocess.Popen[bytes]:
        """Its address is `address`. options, environment: of ``ray start``."""
        known = self.folder / "ray_current_cluster"
        known.unlink(missing_ok=True)
        dashboard = [] if any("dashboard" in option for option in options) else ["--include-dashboard=false"]
        node = self._start(["--head", f"--port={port}", f"--temp-dir={self.folder}", *dashboard, *options], environment)
        self.address = known.read_text().strip()
        return node

    def node(self, *options: str, before: str = "", **environment: str) -> subprocess.Popen[bytes]:
        """before: shell commands that the node's own mount namespace begins with."""
        return self._start([f"--address={self.address}", *options], environment, before)

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """All of a node's processes at once, as a machine that loses its power."""
        for process in _tree(node.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait()

    def inside(self, node: subprocess.Popen[bytes], command: str) -> None:
        """Run shell commands in the node's own mount namespace."""
        subprocess.run(["nsenter", "-m", "-t", str(node.pid), "sh", "-c", command], capture_output=True)

    def end(self) -> None:
        for node in reversed(self._nodes):
            if node.poll() is None:
                self.kill(node)
        for process in psutil.process_iter(["cmdline"]):  # what a node that was killed has left
            if any(str(self.folder) in word for word in process.info["cmdline"] or ()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, words: list[str], environment: dict[str, str], before: str = "") -> subprocess.Popen[bytes]:
        said = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", **environment}
        for _ in range(TRIES):
            port = [f"--ray-client-server-port={free_port()}"] if "--head" in words else []
            command = [
                *RAY,
                "start",
                "--block",
                "--disable-usage-stats",
                "--dashboard-agent-listen-port=0",
                *port,
                *words,
            ]
            if before:
                command = ["unshare", "-m", "sh", "-ec", f'{before}; exec "$@"', "sh", *command]
            log = self.folder / f"{len(self._nodes)}.log"
            with open(log, "wb") as file:
                node = subprocess.Popen(command, env=said, stdout=file, stderr=file, start_new_session=True)
            self._nodes.append(node)
            deadline = time.monotonic() + UP_S
            while node.poll() is None:
                if "--block" in log.read_text(errors="replace"):  # it says that it will now
                    return node
                assert time.monotonic() < deadline, log.read_text(errors="replace")
                time.sleep(0.1)
            if "timed out" not in log.read_text(errors="replace"):
                break
        raise AssertionError(log.read_text(errors="replace"))


def skip_without_namespaces() -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here: that needs root")


def free_port() -> int:
    """One that nobody listens on now, and that the kernel does not hand out for outgoing connections."""
    for port in random.sample(range(20000, 32000), 200):
        with socket.socket() as one:
            try:
                one.bind(("", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port is free")


def _tree(pid: int) -> list[psutil.Process]:
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def cluster() -> Iterator[RayCluster]:
    started = RayCluster()
    yield started
    started.end()


@pytest.fixture
def raydistill(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``raydistill ARGUMENTS...`` in the test's folder; none outlives the test. None unsets a variable."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, cwd: Path = tmp_path, **environment: str | None) -> subprocess.Popen[str]:
        usual = {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", "COLUMNS": "80"}
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, *map(str, arguments)],
            cwd=cwd,
            env={name: value for name, value in {**os.environ, **usual, **environment}.items() if value is not None},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def ended(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=400)
    assert process.returncode == code, f"{process.returncode}\n{out}\n{err}"
    return out, err
