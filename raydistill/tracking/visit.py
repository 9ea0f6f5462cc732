"""Is MLflow to be had where a command would write, and which one answers?"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from raydistill.errors import ABSENT, Fault, TrackingError
from raydistill.masking import masked
from raydistill.tracking.store import CONNECT_TIMEOUT_S, OPTION, locate

_OLDEST_SERVER = 3
"""Its major version: logged models came with MLflow 3."""


@dataclass(frozen=True)
class Visit:
    """client: the version here. shown: where records go, as a line says it. server: its version, "" without one."""

    client: str
    shown: str
    server: str = ""


def visit(uri: str | None) -> Visit:
    """Look at a tracking URI; None: the embedded store, a file in each sweep's folder. Nothing is written.

    Raises:
        TrackingError: nothing answers there, or a server that is too old.
    """
    try:
        client = version("mlflow")
    except PackageNotFoundError as error:
        raise TrackingError(Fault("MLflow", "is not installed here", ABSENT, "pip install mlflow")) from error
    if uri is None:
        return Visit(client, "a file in each sweep's folder")
    _look(uri)
    if urlsplit(uri).scheme not in ("http", "https"):
        return Visit(client, masked(uri))
    server = _server_version(uri)
    if server and int(server.split(".")[0]) < _OLDEST_SERVER:
        rule = f"the server runs MLflow {server}, at least {_OLDEST_SERVER} is needed"
        raise TrackingError(Fault(OPTION, rule, masked(uri), f"install MLflow {client} there"))
    return Visit(client, masked(uri), server)


def _look(uri: str) -> None:
    """As a sweep would, but an SQLite database that is not there yet is not left behind."""
    database = Path(uri.partition(":///")[2]) if uri.startswith("sqlite:///") else None
    new = database is not None and not database.exists()
    try:
        locate(uri, Path())
    finally:
        if new and database is not None and database.is_file() and not database.stat().st_size:
            database.unlink()


def _server_version(uri: str) -> str:
    """ "" where the server does not say."""
    import requests

    verify = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("1", "true")
    try:
        answer = requests.get(f"{uri.rstrip('/')}/version", timeout=CONNECT_TIMEOUT_S, verify=verify)
    except requests.exceptions.RequestException:
        return ""
    said = answer.text.strip()
    return said if answer.ok and re.fullmatch(r"\d+(\.\w+)*", said) else ""
