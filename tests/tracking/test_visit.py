"""Looking at MLflow without writing to it: the versions on both sides, or what is wrong in a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib.metadata import version
from pathlib import Path

import pytest

from raydistill.errors import TrackingError
from raydistill.tracking import visit
from tests.serving import served

HERE = version("mlflow")


@contextmanager
def answering(answer: Callable[[str], tuple[int, str]]) -> Iterator[str]:
    """An HTTP server: path to status and text. An MLflow of another version cannot be installed beside this one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = answer(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with served(Handler) as port:
        yield f"http://user:secret@127.0.0.1:{port}"


def test_files_in_the_storage() -> None:
    found = visit(None)
    assert (found.client, found.shown, found.server) == (HERE, "a file in each sweep's folder", "")


def test_a_database_is_not_left_behind(tmp_path: Path) -> None:
    assert visit(f"sqlite:///{tmp_path}/new.db").shown == f"sqlite:///{tmp_path}/new.db"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept.db").write_text("")
    visit(f"sqlite:///{tmp_path}/kept.db")
    assert (tmp_path / "kept.db").exists()
    with pytest.raises(TrackingError, match="the database's folder does not exist"):
        visit(f"sqlite:///{tmp_path}/nowhere/new.db")


@pytest.mark.slow
@pytest.mark.parametrize(("said", "server"), [("3.0.1", "3.0.1"), ("<html>", "")])
def test_a_servers_version(said: str, server: str) -> None:
    with answering(lambda path: (200, said if path == "/version" else "OK")) as uri:
        found = visit(uri)
    assert found.server == server
    assert "secret" not in found.shown


def test_a_server_that_is_too_old() -> None:
    with (
        answering(lambda path: (200, "2.22.0" if path == "/version" else "OK")) as uri,
        pytest.raises(TrackingError) as caught,
    ):
        visit(uri)
    shown = uri.replace("secret", "***")
    assert str(caught.value) == (
        f"--tracking-uri: the server runs MLflow 2.22.0, at least 3 is needed, got '{shown}'; "
        f"install MLflow {HERE} there"
    )


def test_a_server_that_is_ill() -> None:
    with answering(lambda path: (503, "")) as uri, pytest.raises(TrackingError, match="not a healthy MLflow server"):
        visit(uri)
