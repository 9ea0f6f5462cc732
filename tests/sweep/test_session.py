"""What the steps of a sweep share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from raydistill.storage.open_store import open_store
from tests.sweep.sessions import session_of


@pytest.mark.slow
def test_its_folder_has_a_name_in_the_storage_and_nothing_is_shared_between_two(
    write_sweep: Callable[..., Path], tmp_path: Path
) -> None:
    session = session_of(write_sweep, tmp_path / "root")
    assert session.kept == str(tmp_path / "root" / "tiny")
    bucket = open_store("s3://bucket/prefix")
    assert replace(session, store=bucket, folder=bucket.root / "tiny").kept == "s3://bucket/prefix/tiny"
    other = session_of(write_sweep, tmp_path / "other")
    session.trained_again.add("t0")
    session.shared.append("reference")
    assert (other.trained_again, other.shared, other.team) == (set(), [], None)
