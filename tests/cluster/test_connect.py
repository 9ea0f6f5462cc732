"""An address where no cluster is, or that is none: one line within seconds, before Ray itself tries for a minute."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import enumerate as enumerate_threads

import pytest

from raydistill.cluster.address import Address
from raydistill.cluster.connect import connected
from raydistill.cluster.reach import reach
from raydistill.errors import ResourceError
from tests.serving import files, served


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", "--address : must be host:port"),
        ("nowhere", "--address nowhere: must be host:port; as 'ray start --head' prints it"),
        ("host:port", "--address host:port: must be host:port"),
        ("ray://there:10001", "--address ray://there:10001: must be host:port, a Ray client's address does not do"),
        ("127.0.0.1:99999", "--address 127.0.0.1:99999: nothing answers there"),
    ],
)
def test_no_cluster(address: str, expected: str) -> None:
    with pytest.raises(ResourceError) as caught, connected(address, 0):
        pass
    assert str(caught.value).startswith(expected)


def test_a_closed_port_is_quick() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(ResourceError, match="nothing answers there"), connected(address, 0):
            pass
        assert time.monotonic() - start < 60  # it did not hang: no claim about speed


@contextmanager
def listening() -> Iterator[int]:
    """A port at which everybody is accepted, and nobody answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("silent", [False, True])
def test_something_else_that_answers_there(silent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would ask it for a minute and more, on a thread that can abort the process as it ends."""
    monkeypatch.setattr("raydistill.cluster.reach._ANSWER_S", 0.5 if silent else 3.0)
    threads = set(enumerate_threads())
    other = listening() if silent else served(files(tmp_path))
    with other as port, pytest.raises(ResourceError, match="what answers there is not a Ray cluster's head"):
        reach(Address(f"127.0.0.1:{port}"))
    left = [thread.name for thread in set(enumerate_threads()) - threads if "ask" in thread.name]
    assert not left


@pytest.mark.parametrize("address", [None, "127.0.0.1:6379"])
def test_ray_that_does_not_come_up_in_time(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own words, which it raises as a bare Exception; its 30 s are fixed, so they are put in here."""

    def init(**options: object) -> None:
        raise Exception("The current node timed out during startup.\nMore of it.")

    monkeypatch.setattr("raydistill.cluster.connect.reach", lambda there: there.where)
    monkeypatch.setattr("ray.init", init)
    with pytest.raises(ResourceError) as caught, connected(address, 0):
        pass
    assert "(The current node timed out during startup.)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.ray
def test_a_signal_is_heard_while_ray_ends() -> None:
    """Below Python Ray leaves SIGTERM to the operating system before it ends its processes, which takes a while."""
    code = (
        "import os, signal, ray\nfrom raydistill.cluster.connect import connected\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('heard', flush=True))\n"
        "with connected(None, 0):\n"
        "    node = ray._private.worker._global_node\n"
        "    ends = node.kill_all_processes\n"
        "    def end(*arguments, **options):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        ends(*arguments, **options)\n"
        "    node.kill_all_processes = end\n"
        "print('ended')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout.split()) == (0, ["heard", "ended"]), ended.stderr


@pytest.mark.ray
def test_a_ray_that_was_interrupted_while_it_ends_has_ended() -> None:
    """What is left of one ends this process by itself some seconds later, with another exit code."""
    code = (
        "import os, psutil, signal, sys, ray\nfrom raydistill.cluster.connect import connected\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "try:\n"
        "    with connected(None, 0):\n"
        "        node = ray._private.worker._global_node\n"
        "        ends = node.kill_all_processes\n"
        "        def end(*arguments, **options):\n"
        "            node.kill_all_processes = ends\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        node.kill_all_processes = end\n"
        "except KeyboardInterrupt:\n"
        "    print(ray.is_initialized(), [p.name() for p in psutil.Process().children(recursive=True)], flush=True)\n"
        "    sys.exit(130)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout) == (130, "False []\n"), ended.stderr


@pytest.mark.ray
def test_the_end_of_a_ray_of_our_own_is_noticed_without_a_look() -> None:
    """What reaches for its object store before that is noticed ends the process, without a word."""
    code = (
        "import os, psutil, ray\nfrom raydistill.cluster import watch\n"
        "from raydistill.cluster.connect import connected\n"
        "watch._LOOK_S = 3600\n"
        "def lost(error):\n    print(error, flush=True)\n    os._exit(7)\n"
        "with connected(None, 0, on_lost=lost):\n"
        "    (raylet,) = [p for p in psutil.Process().children(recursive=True) if p.name() == 'raylet']\n"
        "    raylet.kill()\n"
        "    ray.get(ray.remote(num_cpus=1000)(int).remote())\n"  # waits for ever
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 7, ended.stderr
    assert ended.stdout.splitlines()[-1].startswith("Ray: its process on this machine has ended")
