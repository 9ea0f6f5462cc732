"""Available memory against psutil's own reading."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from raydistill.datasets.memory import available_memory


def test_it_is_what_psutil_says_or_the_groups_limit() -> None:
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and limit.read_text().strip() != "max":
        assert 0 <= available_memory() <= int(limit.read_text())
    else:
        assert available_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.1)
