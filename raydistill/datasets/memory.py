"""How much memory a process may still take."""

from __future__ import annotations

import os
from pathlib import Path


def available_memory() -> int:
    """Bytes that are free or can be reclaimed, within the control group's limit where there is one."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):  # not Linux: half of what is built in
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        free = min(free, max(limit - int((group / "memory.current").read_text()), 0))
    except (OSError, ValueError):  # no control group, or "max"
        pass
    return free
