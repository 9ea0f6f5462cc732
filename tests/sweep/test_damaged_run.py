"""Files of a sweep that were damaged or lost between two runs: what --resume makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.records import BASELINE, FINISHED
from raydistill.sweep.journal import read_journal
from raydistill.training import read_history
from tests.sweep.test_warm_run import sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_damage_between_two_runs(write_sweep: Callable[..., Path], tmp_path: Path, spared: None) -> None:
    write_sweep(("num_samples", 2))
    sweep(tmp_path, "space.yaml", "--cpu")
    folder = tmp_path / "sweeps" / "tiny"
    journal = folder / "journal.jsonl"
    before = read_journal(journal).records
    members = [name for name in ("t0000", "t0001") if Path(str(before[name].checkpoint)).is_file()]
    baseline = Path(str(before[BASELINE].checkpoint))
    baseline.write_bytes(baseline.read_bytes()[:5000])
    (folder / "trials" / "t0000" / "checkpoint.pt").unlink()
    spoilt = folder / "trials" / "t0001" / "checkpoint.pt"
    spoilt.write_bytes(spoilt.read_bytes()[:999])
    lines = journal.read_bytes().split(b"\n")
    middle = next(i for i, line in enumerate(lines) if b'"epoch"' in line and b"t0001" in line)
    lines[middle] = b"[" * 100_000
    journal.write_bytes(b"\n".join(lines))

    shown = sweep(tmp_path, "space.yaml", "--cpu", "--resume", "--num-samples", "3")
    assert f"journal.jsonl:{middle + 1}: is not an event of a sweep, what it said is lost" in shown
    assert "the dense baseline is trained again" in shown
    after = read_journal(journal).records
    assert all(record.state == FINISHED for record in after.values())
    again = [name for name in members if f"trial {name} is trained again" in shown]
    assert again
    for name in members:
        assert after[name].values == before[name].values
        assert after[name].last is not None
        assert before[name].last is not None
        assert after[name].last.metrics["top1"] == before[name].last.metrics["top1"], "the record stays"
    for name in again:
        assert len(read_history(folder / "trials" / name / "checkpoint.pt")) == before[name].epochs

    journal.rename(journal.with_name("elsewhere"))
    for option in ((), ("--resume",)):
        shown = sweep(tmp_path, "space.yaml", "--cpu", *option, code=2)
        assert "holds no journal, but results of a sweep (trials/t0000, trials/t0001" in shown
    assert not journal.exists()
