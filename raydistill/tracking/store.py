"""Where MLflow's records go, and whether that place is there: checked before a sweep starts, in seconds.

MLflow itself would try a missing database for 100 s and a missing server for minutes.
"""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from raydistill.errors import Fault, TrackingError
from raydistill.masking import is_masked, masked
from raydistill.tracking.moved import follow

OPTION = "--tracking-uri"
CONNECT_TIMEOUT_S = 5.0
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_CHATTY = ("mlflow", "alembic", "sqlalchemy")
_ENVIRONMENT = {
    # The writer retries by itself: a retry inside MLflow could create a run twice and would outlive a restart.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines for each run that ends
}


@dataclass(frozen=True)
class Place:
    """uri: MLflow's tracking URI. artifacts: the experiment's artifact URI; None leaves it to the server."""

    uri: str
    artifacts: str | None
    embedded: bool

    @property
    def shown(self) -> str:
        """For a line to the user: without a password, the embedded store as its file."""
        return masked(self.uri).removeprefix("sqlite:///")


def embedded_uri(storage: Path) -> str:
    """The SQLite store inside a sweep's storage."""
    return f"sqlite:///{storage.absolute()}/mlflow.db"


def has_runs(storage: Path) -> bool:
    """Whether the embedded store is there and holds runs."""
    path = storage.absolute() / "mlflow.db"
    if not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=CONNECT_TIMEOUT_S)) as tables:
            return tables.execute("SELECT 1 FROM runs").fetchone() is not None
    except sqlite3.Error:
        return False  # `locate` says what is wrong with it


def locate(uri: str | None, storage: Path, artifacts: str | None = None) -> Place:
    """Resolve a tracking URI; None is the embedded store, made in `storage`.

    artifacts: where a database without a server keeps them; None: in `storage`.

    Raises:
        TrackingError: MLflow cannot work with this URI, or nothing answers there.
    """
    if uri is None or uri == embedded_uri(storage):
        return _locate_embedded(storage.absolute())
    if is_masked(uri):
        rule = "its password or token stands there as it is shown, not as it is"
        raise TrackingError(
            Fault(OPTION, rule, uri, "put it back, or set MLFLOW_TRACKING_URI and leave the option out")
        )
    scheme = urlsplit(uri).scheme.split("+")[0].lower()
    artifacts = artifacts or (storage.absolute() / "mlartifacts").as_uri()
    if scheme == "sqlite":
        path = uri.partition(":///")[2]
        if not path or path == ":memory:":
            raise TrackingError(Fault(OPTION, "a database in memory would be lost", uri, "name a file"))
        _check_sqlite(Path(path).absolute(), uri)
        _follow(Path(path).absolute(), artifacts, uri)
        return Place(f"sqlite:///{Path(path).absolute()}", artifacts, False)
    if scheme in DATABASES:
        check_port(uri, DATABASES[scheme])
        return Place(uri, artifacts, False)
    if scheme in ("http", "https"):
        check_server(uri)
        return Place(uri, None, False)
    if (scheme or uri) in ("databricks", "databricks-uc"):  # the bare word is its default profile
        return Place(uri, None, False)
    way_out = "use http(s)://host:port, sqlite:///file.db or postgresql://..., or leave it out for the embedded store"
    raise TrackingError(Fault(OPTION, "not a tracking URI that MLflow can keep runs in", uri, way_out))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Set MLflow's retries and silence its loggers; on leaving, put back what the user had.

    Loggers go silent once `hush` is called, which has to be after MLflow's import: the import configures them.
    """
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    levels = {name: logging.getLogger(name).level for name in _CHATTY}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def hush() -> None:
    """Failures reach the user as one line through the writer; MLflow would add a traceback to each."""
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _locate_embedded(storage: Path) -> Place:
    try:
        (storage / "mlartifacts").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrackingError(Fault("--storage", f"cannot be written ({error.strerror})", str(storage))) from error
    _check_sqlite(storage / "mlflow.db", None)
    _follow(storage / "mlflow.db", (storage / "mlartifacts").as_uri(), None)
    return Place(embedded_uri(storage), (storage / "mlartifacts").as_uri(), True)


def _check_sqlite(path: Path, uri: str | None) -> None:
    where, value = ("--storage", str(path.parent)) if uri is None else (OPTION, uri)
    odd = sorted(set("%?#") & set(str(path)))
    if odd:  # SQLAlchemy reads them as a URL's: the database would lie elsewhere
        rule = f"an SQLite database cannot be in a path with {' '.join(odd)}"
        raise TrackingError(Fault(where, rule, value, "choose another folder"))
    if not path.parent.is_dir():
        raise TrackingError(Fault(where, "the database's folder does not exist", value, f"make {path.parent}"))
    try:
        connection = sqlite3.connect(path, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.execute("PRAGMA user_version")
            connection.execute("BEGIN IMMEDIATE")  # fails here, not in mid-sweep, where the file is read-only
            connection.rollback()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise TrackingError(_unusable(error, path, uri)) from error


def _follow(path: Path, artifacts: str, uri: str | None) -> None:
    try:
        follow(path, artifacts, own=uri is None)
    except sqlite3.Error as error:
        raise TrackingError(_unusable(error, path, uri)) from error


def _unusable(error: sqlite3.Error, path: Path, uri: str | None) -> Fault:
    where, value = ("--storage", str(path.parent)) if uri is None else (OPTION, uri)
    spoilt = any(words in str(error) for words in ("not a database", "malformed"))
    way_out = "remove it or choose another" if spoilt else "check the folder's permissions"
    return Fault(where, f"cannot write the database ({error})", value, way_out)


def check_port(uri: str, default_port: int, option: str = OPTION) -> None:
    """Raises TrackingError where nothing answers within 5 s. option: what named the URI, for the error."""
    parts = urlsplit(uri)
    try:
        port = parts.port or default_port
    except ValueError as error:
        raise TrackingError(Fault(option, "the port must be a number up to 65535", masked(uri))) from error
    if not parts.hostname:
        return  # a socket or a service name: the driver's own business
    try:
        socket.create_connection((parts.hostname, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        rule = f"nothing answers there ({error.strerror or error})"
        raise TrackingError(Fault(option, rule, masked(uri), "start the database, or check host and port")) from error


def check_server(uri: str, option: str = OPTION) -> None:
    """Raises TrackingError where no healthy MLflow server answers within 5 s. option: what named the URI."""
    import requests

    start = "start it (mlflow server --port 5000), or leave the option out for the embedded store"
    parts = urlsplit(uri)
    try:
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise TrackingError(Fault(option, "must be http(s)://host:port", masked(uri), "as in http://127.0.0.1:5000"))
    verify = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("1", "true")
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=CONNECT_TIMEOUT_S, verify=verify)
    except requests.exceptions.Timeout as error:
        rule = f"no answer from the MLflow server within {CONNECT_TIMEOUT_S:g} s"
        raise TrackingError(Fault(option, rule, masked(uri), start)) from error
    except requests.exceptions.RequestException as error:
        raise TrackingError(Fault(option, "no MLflow server answers there", masked(uri), start)) from error
    if answer.status_code >= 500 or answer.status_code == 404:
        rule = f"what answers there is not a healthy MLflow server (status {answer.status_code})"
        raise TrackingError(Fault(option, rule, masked(uri), "check host, port and path"))
