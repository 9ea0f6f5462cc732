"""Files of a sweep that were damaged or lost between two runs: what --resume makes of them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from raydistill.records import BASELINE, FINISHED, TrialRecord
from raydistill.sweep.record.journal import read_journal
from raydistill.training import read_history
from tests.sweep.test_run import mlflow_runs
from tests.sweep.test_warm_run import sweep

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def assert_trained_again(folder: Path, names: list[str], before: Mapping[str, TrialRecord], shown: str) -> None:
    """Their networks are back, and the figures that were recorded first stay."""
    after = read_journal(folder / "journal.jsonl").records
    assert all(record.state == FINISHED for record in after.values())
    for name in names:
        assert f"trial {name} is trained again" in shown
        known, record = before[name], after[name]
        assert record.values == known.values
        assert record.last is not None
        assert known.last is not None
        assert record.last.metrics["top1"] == known.last.metrics["top1"]
        assert len(read_history(folder / "trials" / name / "checkpoint.pt")) == known.epochs


@pytest.mark.long
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
    assert len(members) == 2
    assert_trained_again(folder, members, before, shown)

    write_sweep(("num_samples", 3), ("constraints", ["sparsity >= 0.9999"]))  # now nothing is on the front
    for number, name in enumerate(members):
        checkpoint = folder / "trials" / name / "checkpoint.pt"
        checkpoint.write_bytes(checkpoint.read_bytes()[: -1 - number])
    shown = sweep(tmp_path, "space.yaml", "--cpu", "--resume")
    assert "t0002 is trained again" not in shown
    assert_trained_again(folder, members, before, shown)
    assert "is trained again" not in sweep(tmp_path, "space.yaml", "--cpu", "--resume")

    journal.rename(journal.with_name("elsewhere"))
    for option in ((), ("--resume",)):
        shown = sweep(tmp_path, "space.yaml", "--cpu", *option, code=2)
        assert "holds no journal, but results of a sweep (trials/t0000, trials/t0001" in shown
    assert not journal.exists()


@pytest.mark.long  # tests/tracking has a store that takes nothing any more
def test_a_damaged_mlflow_database_costs_mlflow_alone(
    write_sweep: Callable[..., Path], sweep_here: Callable[..., str], tmp_path: Path, spared: None
) -> None:
    """Damaged where no look at the start comes: the pages of the metrics. The first two sweeps have a
    process each: one that has met the damage speaks of it in later sweeps too."""
    write_sweep(("num_samples", 1))
    sweep(tmp_path, "space.yaml", "--cpu")
    folder = tmp_path / "sweeps" / "tiny"
    database = folder / "mlflow.db"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        roots = connection.execute("SELECT rootpage FROM sqlite_master WHERE tbl_name LIKE '%metrics'").fetchall()
    content = bytearray(database.read_bytes())
    for (page,) in roots:
        content[(page - 1) * size : page * size] = b"\x5a" * size
    database.write_bytes(content)

    shown = sweep(tmp_path, "space.yaml", "--cpu", "--resume", "--num-samples", "2", code=1)
    assert "Traceback" not in shown
    told = " ".join(shown.split())
    line = f"warning: MLflow cannot be written, its records stay behind: {database}: the database is damaged; "
    assert told.count("the database is damaged") == told.count(line) == 1
    assert told.count("warning: ") == 1
    assert "@pareto-knee" not in told
    assert "Pareto front" in told
    records = read_journal(folder / "journal.jsonl").records
    assert {name: record.state for name, record in records.items()} == dict.fromkeys(
        (BASELINE, "t0000", "t0001"), FINISHED
    )

    database.unlink()
    assert "warning" not in sweep_here("space.yaml", "--cpu", "--resume", "--num-samples", "2")
    runs = mlflow_runs(folder, "tiny")
    assert set(runs) == {"", *records}
    for name, record in records.items():
        assert record.last is not None
        assert runs[name].data.metrics["top1"] == pytest.approx(record.last.metrics["top1"])
