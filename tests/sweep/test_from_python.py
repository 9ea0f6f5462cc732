"""A sweep as a function."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import raydistill
from raydistill.errors import ConfigError

SCRIPT = """
import raydistill, sys
if __name__ == "__main__":
    outcome = raydistill.run_sweep(sys.argv[1], sys.argv[2], num_samples=2, cpu=True)
    again = raydistill.run_sweep(sys.argv[1], sys.argv[2], num_samples=2, cpu=True, resume=True)
    assert list(outcome.records) == list(again.records) == ["baseline", "t0000", "t0001"]
    front = [row.record.trial_id for row in outcome.rows if row.pareto]
    assert front and front == [row.record.trial_id for row in again.rows if row.pareto]
    print("front:", *front)
"""


def test_what_is_wrong_is_said_before_ray_starts(write_sweep: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="no such argument, got 'num_sample'; did you mean 'num_samples'"):
        raydistill.run_sweep(write_sweep(), num_sample=2)
    with pytest.raises(ConfigError, match="num_samples"):
        raydistill.run_sweep(write_sweep(("num_samples", 0)))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_it_runs_and_goes_on(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(write_sweep()), str(tmp_path / "sweeps")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].startswith("front: ")
