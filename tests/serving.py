"""An HTTP server of this process, for tests of what speaks to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread


@contextmanager
def served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[int]:
    """The port at which it answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        # It looks this often whether it shall end; by itself each half second, which a test would wait for.
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def files(folder: Path) -> Callable[..., BaseHTTPRequestHandler]:
    """A handler for what lies in a folder."""
    return partial(_Files, directory=str(folder))


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...
