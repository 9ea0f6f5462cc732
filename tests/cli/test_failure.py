"""A command ends on what the user can mend with a line a fault."""

from __future__ import annotations

import subprocess
import sys

import pytest

from raydistill.cli.failure import fail
from raydistill.errors import ConfigError, Fault


def test_a_line_a_fault_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fail(ConfigError(Fault("a.yaml: lr", "must be a number", "x"), "and this"))
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: a.yaml: lr: must be a number, got 'x'\nerror: and this\n")


@pytest.mark.slow
def test_without_ray_the_process_ends_at_once_and_what_was_printed_is_not_lost() -> None:
    code = (
        "import atexit; from raydistill.cli.failure import fail; from raydistill.errors import RayLostError;"
        "atexit.register(print, 'Ray waits here'); print('said before'); fail(RayLostError('Ray has gone'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "said before\n", "error: Ray has gone\n")
