"""An address where no cluster is, or that is none: one line within seconds, before Ray itself tries for a minute."""

from __future__ import annotations

import socket
import time

import pytest

from raydistill.cluster.connect import connected
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
