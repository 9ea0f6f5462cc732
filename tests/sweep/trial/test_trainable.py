"""What runs in a trial's process, without the process."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from raydistill.errors import TrainingError
from raydistill.records import EpochMetrics
from raydistill.sweep.trial.trainable import _told


@pytest.mark.parametrize("code", [0, 3, "enough", None])
def test_a_users_sys_exit_is_told_as_what_it_is(code: object) -> None:
    def training() -> Iterator[EpochMetrics]:
        sys.exit(code)  # type: ignore[arg-type]
        yield

    with pytest.raises(TrainingError) as caught:
        list(_told(training()))
    assert f"called sys.exit({code!r}); raise an error there instead" in str(caught.value)
