"""Keep the C allocator from handing large activations back to the system after every minibatch."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER = 1 << 30


@cache
def keep_freed_memory() -> bool:
    """Make glibc reuse freed blocks instead of unmapping them; True where that could be set.

    By default each activation of a few megabytes is mapped anew, and its pages are zeroed by the kernel, in every
    step: a quarter of a simplenet step's time. The process keeps the memory of its largest step. Elsewhere than on
    glibc, and once set, this does nothing. See mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _NEVER)) and bool(mallopt(_M_TRIM_THRESHOLD, _NEVER))
