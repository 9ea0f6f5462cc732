"""What runs in a trial's process, without the process."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydistill.errors import TrainingError
from raydistill.records import EpochMetrics
from raydistill.sweep.trial.trainable import _told, _traced


@pytest.mark.parametrize("code", [0, 3, "enough", None])
def test_a_users_sys_exit_is_told_as_what_it_is(code: object) -> None:
    def training() -> Iterator[EpochMetrics]:
        sys.exit(code)  # type: ignore[arg-type]
        yield

    with pytest.raises(TrainingError) as caught:
        list(_told(training()))
    assert f"called sys.exit({code!r}); raise an error there instead" in str(caught.value)


def test_a_defect_leaves_its_traceback_without_passwords_and_what_a_user_can_mend_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), _traced(tmp_path):
        raise ZeroDivisionError("at http://me:secret@host")
    left = (tmp_path / "error.txt").read_text()
    assert left.startswith("Traceback")
    assert "ZeroDivisionError: at http://me:***@host" in left
    for error in (TrainingError("diverged"), OSError(errno.ENOSPC, "full", "file")):
        with pytest.raises(type(error)), _traced(tmp_path / "other"):
            raise error
    assert not (tmp_path / "other").exists()
