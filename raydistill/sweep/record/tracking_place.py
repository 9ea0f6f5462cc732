"""MLflow beside a storage that outlives this machine: its records must too."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlsplit

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.storage import Store
from raydistill.sweep.file.load import Sweep

_SERVERS = ("http", "https", "databricks", "databricks-uc")


def check_tracking(sweep: Sweep, store: Store) -> None:
    """Raises ConfigError where MLflow's records would be lost with this machine, or its artifacts cannot be kept."""
    if not store.outlives_this_machine:
        return
    uri = sweep.sections.tracking.uri
    if uri is None:
        rule = f"is needed: with --storage {store.shown} a database on this machine would be lost with it"
        way_out = "name an MLflow server, here or by MLFLOW_TRACKING_URI (or sqlite:///FILE, if that may be)"
        raise ConfigError(Fault("--tracking-uri", rule, ABSENT, way_out))
    if store.shown.startswith("s3:") and not _is_server(uri) and find_spec("boto3") is None:
        rule = f"MLflow keeps the artifacts of a database without a server in {store.shown}, and needs boto3 for that"
        raise ConfigError(Fault("--tracking-uri", rule, ABSENT, "pip install boto3, or name an MLflow server"))


class MlflowFiles(TypedDict, total=False):
    """What `SweepLog` has to know of files that are not in a folder of this machine."""

    lent: Callable[[str], AbstractContextManager[Path]]
    artifacts: str


def mlflow_files(sweep: Sweep, store: Store) -> MlflowFiles:
    """Nothing, where the storage is a folder of this machine."""
    if not store.outlives_this_machine:
        return {}
    kept = store.reference(store.root / sweep.sections.name)
    return {"lent": store.lent, "artifacts": f"{kept}/mlartifacts"}


def _is_server(uri: str) -> bool:
    return urlsplit(uri).scheme.lower() in _SERVERS
