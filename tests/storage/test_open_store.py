"""From what the user says to the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydistill.errors import ConfigError
from raydistill.storage.bucket import Bucket
from raydistill.storage.open_store import open_store
from raydistill.storage.store import Folder


def test_a_path_is_a_folder_and_a_uri_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for where in ("here", Path("here"), tmp_path / "x" / ".." / "here"):
        store = open_store(where)
        assert isinstance(store, Folder)
        assert store.root == tmp_path.resolve() / "here"
    bucket = open_store("s3://bucket/prefix")
    assert isinstance(bucket, Bucket)
    assert bucket.shown == "s3://bucket/prefix"
    assert list(tmp_path.iterdir()) == []


def test_one_slash_too_few_is_no_folder_of_that_name() -> None:
    with pytest.raises(ConfigError, match=r"needs two slashes, got 's3:/bucket/x'; did you mean 's3://bucket/x'"):
        open_store("s3:/bucket/x")
    assert isinstance(open_store("odd:/name"), Folder)
