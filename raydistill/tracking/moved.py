"""MLflow writes down where artifacts lie, as absolute URIs: a sweep's folder that was moved takes its records along."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow(database: Path, artifacts: str, own: bool) -> None:
    """Make records of artifacts that a folder named as `artifacts` held elsewhere say that they are in `artifacts`.

    own: the database lies beside them and belongs to that folder alone; else only what lies nowhere now is changed.
    A store without the tables is left as it is.

    Raises:
        sqlite3.Error: the database cannot be read or written.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=5.0)) as tables, tables:
        kept = tables.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone()
        found = tables.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall() if kept else []
        name = artifacts.rpartition("/")[2]
        for (old,) in found:
            elsewhere = bool(old) and old != artifacts and old.startswith("file:") and old.endswith(f"/{name}")
            if elsewhere and (own or (_exists(artifacts) and not _exists(old))):
                _rename(tables, old, artifacts)


def _rename(tables: sqlite3.Connection, old: str, new: str) -> None:
    for table, column in _COLUMNS:
        if column in {row[1] for row in tables.execute(f"PRAGMA table_info({table})")}:
            tables.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # nosec B608 - names of `_COLUMNS`
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )


def _exists(uri: str) -> bool:
    return Path(unquote(urlsplit(uri).path)).is_dir()
