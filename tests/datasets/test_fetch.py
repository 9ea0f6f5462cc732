"""Downloads against real sockets on this machine: whole, refused, hanging, trickling, cut off, wrong."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from raydistill.datasets.fetch import PATIENCE_S, DatasetUnavailable, fetch
from raydistill.errors import StorageError

CONTENT = bytes(range(256)) * 8000
MD5 = hashlib.md5(CONTENT).hexdigest()
Answer = Callable[[socket.socket, threading.Event], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Starts a server that accepts and then does what `answer` does; gives its address."""
    stop = threading.Event()
    listening: list[socket.socket] = []

    def start(answer: Answer) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with closing(connection), suppress(ConnectionError):  # whom it answers may have given up
                    answer(connection, stop)

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/file.tar.gz"

    yield start
    stop.set()
    for server in listening:
        server.close()


def header(connection: socket.socket, length: int) -> None:
    connection.recv(4096)
    connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode())


def never(connection: socket.socket, stop: threading.Event) -> None:
    stop.wait(60)


def trickle(connection: socket.socket, stop: threading.Event) -> None:
    header(connection, len(CONTENT))
    while not stop.wait(0.05):
        connection.sendall(b"x")


def slow_but_whole(connection: socket.socket, stop: threading.Event) -> None:
    header(connection, len(CONTENT))
    for start in range(0, len(CONTENT), 256_000):
        connection.sendall(CONTENT[start : start + 256_000])
        stop.wait(0.25)


def whole(connection: socket.socket, stop: threading.Event) -> None:
    header(connection, len(CONTENT))
    connection.sendall(CONTENT)


def cut_off(connection: socket.socket, stop: threading.Event) -> None:
    header(connection, len(CONTENT))
    connection.sendall(CONTENT[:5000])


def not_found(connection: socket.socket, stop: threading.Event) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.slow
def test_a_download_longer_than_the_patience_arrives_whole(serve: Callable, tmp_path: Path) -> None:
    started = time.monotonic()
    fetch(serve(slow_but_whole), tmp_path / "new" / "file", MD5, patience_s=0.8, least_bytes=100_000)
    assert time.monotonic() - started > 1.0
    assert (tmp_path / "new" / "file").read_bytes() == CONTENT
    assert len(list((tmp_path / "new").iterdir())) == 1


@pytest.mark.parametrize("answer", [never, trickle, cut_off, not_found])
def test_anything_else_ends_in_time_and_leaves_nothing(serve: Callable, tmp_path: Path, answer: Answer) -> None:
    started = time.monotonic()
    with pytest.raises(DatasetUnavailable) as caught:
        fetch(serve(answer), tmp_path / "file", MD5, patience_s=0.4)
    assert time.monotonic() - started < 30  # it did not hang: no claim about speed
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_after_giving_up_leaves_nothing_either(serve: Callable, tmp_path: Path) -> None:
    def late(connection: socket.socket, stop: threading.Event) -> None:
        stop.wait(0.4)
        whole(connection, stop)

    with pytest.raises(DatasetUnavailable):
        fetch(serve(late), tmp_path / "file", MD5, patience_s=0.2)
    time.sleep(0.6)
    assert list(tmp_path.iterdir()) == []


def test_a_name_look_up_that_hangs_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(60))
    started = time.monotonic()
    with pytest.raises(DatasetUnavailable, match=r"0 bytes arrived in 0\.4 s"):
        fetch("http://dataset.invalid/file", tmp_path / "file", MD5, patience_s=0.4)
    assert time.monotonic() - started < 30  # it did not hang: no claim about speed


def test_a_refused_connection_says_so_at_once(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    with pytest.raises(DatasetUnavailable, match=r"cannot be downloaded .*refused"):
        fetch(f"http://127.0.0.1:{port}/file", tmp_path / "file", MD5)


def test_other_bytes_than_published_are_thrown_away(serve: Callable, tmp_path: Path) -> None:
    with pytest.raises(DatasetUnavailable, match="wrong checksum"):
        fetch(serve(whole), tmp_path / "file", "0" * 32)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_no_reason_for_a_fallback(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write the download"):
        fetch("http://127.0.0.1:1/file", tmp_path / "file" / "below", MD5)


@pytest.mark.slow
def test_the_patience_a_user_meets_is_ten_seconds(serve: Callable, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DatasetUnavailable):
        fetch(serve(never), tmp_path / "file", MD5)
    assert PATIENCE_S == 10
    assert 9 < time.monotonic() - started < 60
