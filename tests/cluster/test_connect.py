"""An address where no cluster is, or that is none: one line within seconds, before Ray itself tries for a minute."""

from __future__ import annotations

import socket
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from threading import enumerate as enumerate_threads

import pytest

from raydistill.cluster.address import Address
from raydistill.cluster.connect import connected
from raydistill.cluster.reach import reach
from raydistill.errors import ResourceError


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


@pytest.mark.parametrize("silent", [False, True])
def test_something_else_that_answers_there(silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would ask it for a minute and more, on a thread that can abort the process as it ends."""
    monkeypatch.setattr("raydistill.cluster.reach._ANSWER_S", 0.5 if silent else 3.0)
    threads = set(enumerate_threads())
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other:
        if not silent:  # what is not served is accepted all the same, and says nothing
            Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        address = f"127.0.0.1:{other.server_address[1]}"
        with pytest.raises(ResourceError, match="what answers there is not a Ray cluster's head"):
            reach(Address(address))
        if not silent:
            other.shutdown()
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
