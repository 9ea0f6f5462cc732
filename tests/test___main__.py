from __future__ import annotations

import subprocess
import sys

import pytest

from raydistill import __version__


@pytest.mark.slow
def test_the_package_is_the_command() -> None:
    ended = subprocess.run([sys.executable, "-m", "raydistill", "--version"], capture_output=True, text=True)
    assert (ended.returncode, __version__ in ended.stdout) == (0, True), ended.stderr
