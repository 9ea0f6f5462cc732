"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from raydistill.errors import StorageError
from raydistill.files import clear_temporaries, full_disk, missing, unreadable, unwritable, write_atomically


def test_the_content_is_replaced_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    for content in (b"old\n", "n\u00e9w", b""):
        write_atomically(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(path.parent) == ["file"]


def test_what_was_there_stays_where_it_cannot_be_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "inside").write_text("kept")
    with pytest.raises(StorageError, match=r"taken: cannot be written \(is a directory\)"):
        write_atomically(folder, "x")
    assert os.listdir(tmp_path) == ["taken"]
    with pytest.raises(StorageError, match="cannot be written"):
        write_atomically(folder / "inside" / "below", "x")
    assert (folder / "inside").read_text() == "kept"


def test_only_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    for name in (".a.1-00.tmp", "a.tmp", ".hidden", "a"):
        (tmp_path / name).write_text("")
    clear_temporaries(tmp_path, tmp_path / "not there")
    assert sorted(os.listdir(tmp_path)) == [".hidden", "a", "a.tmp"]


def test_a_full_disk_is_found_beneath_other_errors() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    above, between = RuntimeError("above"), ValueError("between")
    above.__cause__, between.__context__ = between, full
    assert full_disk(above) is full
    assert full_disk(OSError(errno.EACCES, "x")) is None
    assert full_disk(None) is None


def test_what_failed_is_said_as_the_system_says_it() -> None:
    error = OSError(errno.EACCES, "Permission denied")
    assert "p: cannot be written (permission denied); free some space" in str(unwritable("p", error))
    assert str(unreadable("p", error)) == "p: cannot be read (Permission denied)"


def test_a_uri_that_is_taken_for_a_path_is_known_for_one() -> None:
    assert "copy it to this machine" in missing("s3:/bucket/x")
    assert missing("C/x", "look again") == "look again"
