from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import resource, torch
from raydistill.training.allocator import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(16_000_000)  # 64 MB: above 32 MB glibc maps anew by default, however often it is asked
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
fresh = faults()
assert keep_freed_memory()
faults()
print(fresh, faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is set")
def test_large_blocks_are_reused_instead_of_mapped_anew() -> None:
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    fresh, kept = map(int, result.stdout.split())
    assert fresh > 100  # 64 MB in pages of 4 kB, or of 2 MB where the kernel joins them
    assert kept < fresh / 10
