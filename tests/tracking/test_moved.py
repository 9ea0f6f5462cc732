"""Records follow a folder that was moved."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from raydistill.tracking.moved import follow


def database(folder: Path, old: str) -> Path:
    path = folder / "mlflow.db"
    tables = sqlite3.connect(path)
    tables.execute("CREATE TABLE experiments (artifact_location TEXT)")
    tables.execute("CREATE TABLE runs (artifact_uri TEXT, name TEXT)")
    tables.execute("INSERT INTO experiments VALUES (?)", (old,))
    tables.execute("INSERT INTO experiments VALUES ('s3://bucket/mlartifacts')")
    for uri in (f"{old}/1/artifacts", f"{old}-else/1", old):
        tables.execute("INSERT INTO runs VALUES (?, ?)", (uri, old))
    tables.commit()
    tables.close()
    return path


def uris(path: Path) -> list[str]:
    tables = sqlite3.connect(path)
    found = [
        uri
        for (uri,) in tables.execute(
            "SELECT artifact_location FROM experiments UNION ALL SELECT artifact_uri FROM runs"
        )
    ]
    tables.close()
    return found


def test_what_lay_in_the_folder_is_renamed_and_nothing_else(tmp_path: Path) -> None:
    old, new = "file:///gone/sweep/mlartifacts", (tmp_path / "mlartifacts").as_uri()
    path = database(tmp_path, old)
    follow(path, new, own=True)
    assert uris(path) == [new, "s3://bucket/mlartifacts", f"{new}/1/artifacts", f"{old}-else/1", new]
    follow(path, new, own=True)
    assert uris(path)[0] == new


def test_in_a_database_of_several_only_what_lies_nowhere_follows(tmp_path: Path) -> None:
    here, there = tmp_path / "a b" / "mlartifacts", tmp_path / "b" / "mlartifacts"
    there.mkdir(parents=True)
    path = database(tmp_path, there.as_uri())
    follow(path, here.as_uri(), own=False)
    assert uris(path)[0] == there.as_uri(), "nothing was moved there"
    here.mkdir(parents=True)
    follow(path, here.as_uri(), own=False)
    assert uris(path)[0] == there.as_uri(), "it still lies where it lay"
    there.rmdir()
    follow(path, here.as_uri(), own=False)
    assert uris(path)[0] == here.as_uri()


def test_another_name_and_a_store_without_tables_are_left_alone(tmp_path: Path) -> None:
    path = database(tmp_path, "file:///gone/artifacts")
    follow(path, "file:///here/mlartifacts", own=True)
    assert uris(path)[0] == "file:///gone/artifacts"
    follow(tmp_path / "empty.db", "file:///here/mlartifacts", own=True)
