from __future__ import annotations

import logging
import os
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from raydistill.errors import TrackingError
from raydistill.tracking.store import Place, check_port, embedded_uri, has_runs, hush, locate, undisturbed


def fault_of(uri: str | None, storage: Path) -> str:
    with pytest.raises(TrackingError) as caught:
        locate(uri, storage)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_embedded_store_is_absolute_and_quotes_its_artifacts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = locate(None, Path("a ü"))
    assert place.uri == f"sqlite:///{tmp_path}/a ü/mlflow.db" == embedded_uri(Path("a ü"))
    assert place.artifacts == f"file://{tmp_path}/a%20%C3%BC/mlartifacts"
    assert place.embedded
    assert (tmp_path / "a ü" / "mlartifacts").is_dir()
    assert locate(place.uri, Path("a ü")) == place


@pytest.mark.parametrize("odd", ["%20", "a?b", "a#b"])
def test_a_path_that_sqlalchemy_would_misread_is_refused(tmp_path: Path, odd: str) -> None:
    message = fault_of(None, tmp_path / odd)
    assert message.startswith("--storage:")
    assert "choose another folder" in message


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database at all, but long enough to be read as one" * 50)
    assert "not a database" in fault_of(None, tmp_path)


def test_a_storage_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    assert fault_of(None, tmp_path / "x").startswith("--storage: cannot be written")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_storage(tmp_path: Path) -> None:
    (tmp_path / "mlartifacts").mkdir()
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert "--storage" in fault_of(None, tmp_path)


def test_a_locked_database(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("raydistill.tracking.store.CONNECT_TIMEOUT_S", 0.1)
    holder = sqlite3.connect(tmp_path / "mlflow.db")
    holder.execute("BEGIN EXCLUSIVE")
    assert "locked" in fault_of(None, tmp_path)
    holder.close()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("mlruns", ["not a tracking URI", "sqlite:///file.db"]),
        ("file:///tmp/mlruns", ["not a tracking URI"]),
        ("ftp://host", ["not a tracking URI"]),
        ("", ["not a tracking URI"]),
        ("sqlite://", ["in memory"]),
        ("sqlite:///:memory:", ["in memory"]),
        ("sqlite:////no/such/folder/x.db", ["folder does not exist", "make /no/such/folder"]),
        ("http://", ["must be http(s)://host:port"]),
        ("http://host:0", ["must be http(s)://host:port"]),
        ("http://host:99999", ["must be http(s)://host:port"]),
        ("http://127.0.0.1:{closed}", ["no MLflow server answers", "mlflow server --port 5000"]),
        ("http://me:secret@127.0.0.1:{closed}", ["no MLflow server answers", "me:***@127.0.0.1"]),
        ("postgresql://me:secret@127.0.0.1:{closed}/db", ["nothing answers there", "me:***@"]),
        ("postgresql+psycopg2://127.0.0.1:{closed}/db", ["nothing answers there"]),
    ],
)
def test_faults(tmp_path: Path, uri: str, words: list[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    before = time.monotonic()
    message = fault_of(uri.replace("{closed}", str(port)), tmp_path)
    assert time.monotonic() - before < 60  # it did not hang: no claim about speed
    assert message.startswith("--tracking-uri:")
    assert all(word in message for word in words), message
    assert "secret" not in message


def test_a_server_that_never_answers_is_given_up_in_time(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("raydistill.tracking.store.CONNECT_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        message = fault_of(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
    assert "no answer from the MLflow server within 0.3 s" in message


@pytest.mark.parametrize("status", [404, 503])
def test_something_else_listens_there(tmp_path: Path, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(4096)
            connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        message = fault_of(f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path)
        thread.join()
    assert f"not a healthy MLflow server (status {status})" in message


def test_a_relative_database_becomes_absolute(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = locate("sqlite:///mine.db", tmp_path / "storage")
    assert place.uri == f"sqlite:///{tmp_path}/mine.db"
    assert not place.embedded


def test_the_users_environment_and_log_levels_come_back(monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with undisturbed():
        hush()
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
        assert logging.getLogger("alembic").level == logging.CRITICAL
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert logging.getLogger("alembic").level == logging.WARNING


@pytest.mark.parametrize("status", [200, 401, 499])
def test_whoever_answers_is_taken_for_a_server(tmp_path: Path, status: int) -> None:
    """One that asks who we are is there; MLflow itself says later what it thinks of us."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked: list[bytes] = []

        def answer() -> None:
            connection, _ = server.accept()
            asked.append(connection.recv(4096))
            connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        uri = f"http://127.0.0.1:{server.getsockname()[1]}/at/"
        assert locate(uri, tmp_path) == Place(uri, None, False)
        thread.join()
    assert asked[0].startswith(b"GET /at/health ")
    assert list(tmp_path.iterdir()) == []  # nothing is made for it here


def test_a_port_that_is_not_said_is_the_databases_own(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_port("postgresql://127.0.0.1/db", port)
        check_port(f"postgresql://127.0.0.1:{port}/db", 1)
        place = locate(f"mysql+pymysql://127.0.0.1:{port}/db", tmp_path)
        assert place == Place(f"mysql+pymysql://127.0.0.1:{port}/db", (tmp_path / "mlartifacts").as_uri(), False)
        assert locate(place.uri, tmp_path, "s3://b/a").artifacts == "s3://b/a"
    with pytest.raises(TrackingError, match=r"^--there: nothing answers there \("):
        check_port("postgresql://127.0.0.1/db", port, "--there")
    check_port("postgresql:///db?host=/var/run", 1)  # a socket is the driver's own business
    for wrong in ("http://127.0.0.1:0", "http://:5000", "http://host:99999"):
        assert "must be http(s)://host:port" in fault_of(wrong, tmp_path)
    for uri in ("databricks", "databricks-uc", "databricks://profile"):  # the bare word is what MLflow's pages have
        assert locate(uri, tmp_path) == Place(uri, None, False)


def test_whether_there_are_runs(tmp_path: Path) -> None:
    assert not has_runs(tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as tables:
        tables.execute("CREATE TABLE other (x)")
    assert not has_runs(tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as tables:
        tables.execute("CREATE TABLE runs (x)")
    assert not has_runs(tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as tables:
        tables.execute("INSERT INTO runs VALUES (1)")
    assert has_runs(tmp_path)


def test_a_place_is_shown_without_its_password() -> None:
    assert Place("sqlite:////a b/mlflow.db", None, True).shown == "/a b/mlflow.db"
    assert Place("postgresql://me:secret@host/db", None, False).shown == "postgresql://me:***@host/db"


@pytest.mark.slow
def test_importing_the_room_imports_neither_mlflow_nor_drawing() -> None:
    heavy = ("mlflow", "pandas", "matplotlib", "plotly", "torch", "ray")
    code = f"import sys, raydistill.tracking; print([m for m in {heavy} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
