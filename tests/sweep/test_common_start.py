"""A real sweep whose trials have their first epochs in common."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.training import read_checkpoint, read_history
from tests.sweep.planning.test_common_start import LATE

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_they_are_trained_once_and_every_trial_tells_of_them(
    write_sweep: Callable[..., Path], sweep_here: Callable[..., str], spared: None, tmp_path: Path
) -> None:
    file = write_sweep(*LATE, ("num_samples", 2))
    said = sweep_here(file, "--storage", "sweeps")
    assert "training what trials have in common, the first 3 of their epochs" in said
    (folder,) = (tmp_path / "sweeps" / "starts").iterdir()
    common = read_history(folder / "checkpoint.pt")
    assert [metrics.epoch for metrics in common] == [0, 1, 2]
    events = [json.loads(line) for line in (tmp_path / "sweeps" / "tiny" / "journal.jsonl").read_text().splitlines()]
    started = {e["record"]["trial_id"]: e["record"] for e in events if e["event"] == "trial_started"}
    assert [record["extra"]["fork"] for record in started.values()] == ["after 3 epochs that trials have in common"] * 2
    trained = [tmp_path / "sweeps" / "tiny" / "trials" / name / "checkpoint.pt" for name in started]
    for path in trained:
        history = read_history(path)
        assert [metrics.epoch for metrics in history] == list(range(8))
        assert [m.metrics for m in history[:3]] == [m.metrics for m in common]
        assert [m.timestamp_ms for m in history[:3]] == [m.timestamp_ms for m in common]
    first, second = (read_checkpoint(path)["model"]["fc1.weight"] for path in trained)
    assert (first == 0).sum() != (second == 0).sum()
    time = (folder / "checkpoint.pt").stat().st_mtime_ns
    said = sweep_here(file, "--storage", "sweeps", "--name", "again", "--num-samples", 2)
    assert "in common" not in said
    assert (folder / "checkpoint.pt").stat().st_mtime_ns == time
