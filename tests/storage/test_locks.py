"""Locks: one holder at a time, gone with its process, however that ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from raydistill.errors import StorageError
from raydistill.storage.locks import hold

HOLDER = """
import sys, time
from pathlib import Path
from raydistill.storage.locks import hold
with hold(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_holder_is_told_who_has_it(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(StorageError) as caught, hold(tmp_path / "lock", "this sweep", wait_s=0.3):
        pass
    assert time.monotonic() - start >= 0.3
    assert f"this sweep is in use by process {holder.pid} on " in str(caught.value)
    holder.kill()
    holder.wait()


def test_a_killed_holder_leaves_nothing(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.kill()
    with hold(tmp_path / "lock", "this sweep", wait_s=5.0):
        pass
    holder.wait()
    with hold(tmp_path / "lock", "this sweep"):  # and what was held is free again
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"), hold(tmp_path / "file" / "lock", "this sweep"):
        pass
