"""Whole sweeps whose process, or Ray's, is killed: our line and the way to resume, whoever ends first."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from raydistill.records import FINISHED
from raydistill.sweep.record.journal import read_journal
from tests.sweep.test_signals import Command

ENDED = "error: the sweep's process was ended from outside or by a library, without a word"


def raylet_of(process: subprocess.Popen[str]) -> psutil.Process:
    (raylet,) = (child for child in psutil.Process(process.pid).children(recursive=True) if child.name() == "raylet")
    return raylet


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long  # tests/cli/test_survivor.py has what is said for a process that ends without a word
@pytest.mark.parametrize("victim", ["raylet", "the sweep"])
def test_a_sweep(
    victim: str, write_sweep: Callable[..., Path], sweep_here: Callable[..., str], tmp_path: Path, spared: None
) -> None:
    """Killed in mid-sweep: Ray's process (Ray may be quicker than we are in ending the sweep's), or the sweep's own, as
    the kernel does."""
    write_sweep(("training/epochs", 20), ("num_samples", 2))
    process = Command(tmp_path, "sweep", "space.yaml", "--cpu")
    process.until("2 trials of 20 epochs")
    journal = tmp_path / "sweeps" / "tiny" / "journal.jsonl"
    deadline = time.monotonic() + 300
    while not any(trial_id == "t0000" for trial_id, _ in read_journal(journal).epochs):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    if victim == "raylet":
        raylet_of(process.process).kill()
    else:
        process.process.kill()
    code, shown = process.end()
    assert "not finished; resume with:\n  raydistill sweep space.yaml --cpu --resume\n" in shown
    assert "Traceback" not in shown
    if victim == "raylet":
        assert code == 2 or ENDED in shown
        assert code == 1 or "error: Ray: its process on this machine has ended" in shown
    else:
        assert code == -signal.SIGKILL
        assert ENDED in shown
    sweep_here("space.yaml", "--cpu", "--resume")
    records = read_journal(journal).records
    assert all(record.state == FINISHED for record in records.values())
