"""A trial as a folder to take away: it is what the sweep's table says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydistill.errors import CheckpointError, ConfigError
from raydistill.export import read_manifest
from raydistill.search.constraints import Constraint
from raydistill.sweep.results.deliver import deliver
from raydistill.sweep.results.read import KeptSweep, read_sweep
from raydistill.training import load_model
from tests.sweep.kept import keep_sweep

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptSweep:
    keep_sweep(root := tmp_path_factory.mktemp("storage"), constraints=(Constraint("size_bytes", "<=", 200_000.0),))
    return read_sweep("tiny", str(root))


def row(kept: KeptSweep, trial_id: str) -> object:
    return next(row for row in kept.rows() if row.record.trial_id == trial_id)


def test_it_weighs_what_the_constraint_was_held_against(kept: KeptSweep, tmp_path: Path) -> None:
    """The knee of an earlier version weighed 248,024 bytes under a bound of 150,000."""
    found = row(kept, "t0002")
    assert found.violations == ()  # type: ignore[attr-defined]
    manifest = deliver(kept, found, tmp_path / "out", ["checkpoint"], latency=False)  # type: ignore[arg-type]
    last = kept.records["t0002"].last
    assert last is not None
    assert manifest.network == {"sparsity": last.sparsity, **last.footprint}
    model = load_model(tmp_path / "out" / "checkpoint.pt")
    size = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    assert size == last.footprint["size_bytes"] <= 200_000 < manifest.dense["size_bytes"]
    said = read_manifest(tmp_path / "out")
    assert said.source["trial"] == "t0002"
    assert said.source["constraints"] == ["size_bytes <= 200000"]
    test = kept.records["t0002"].test
    assert test is not None
    assert said.figures["test"] == {**test.metrics, "samples": 359, "seeds": 1}
    assert said.figures["validation"]["top1"] == last.metrics["top1"]


def test_lost_checkpoints(kept: KeptSweep, tmp_path: Path) -> None:
    told: list[str] = []
    baseline = Path(str(kept.baseline.checkpoint))  # type: ignore[union-attr]
    trial = Path(str(kept.records["t0001"].checkpoint))
    before = {path: path.read_bytes() for path in (baseline, trial)}
    try:
        baseline.unlink()
        found = row(kept, "t0001")
        manifest = deliver(kept, found, tmp_path / "a", ["checkpoint"], latency=False, tell=told.append)  # type: ignore[arg-type]
        assert manifest.dense == {}
        assert any("the dense baseline's checkpoint is gone" in line for line in told)
        trial.write_bytes(b"half")
        with pytest.raises(CheckpointError, match=r"t0001/checkpoint\.pt"):
            deliver(kept, found, tmp_path / "b", ["checkpoint"], latency=False)  # type: ignore[arg-type]
    finally:
        for path, content in before.items():
            path.write_bytes(content)
    assert not (tmp_path / "b").exists()


def test_a_format_that_is_none_is_said_first(kept: KeptSweep, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--format: no such format"):
        deliver(kept, row(kept, "t0001"), tmp_path / "out", ["onxx"])  # type: ignore[arg-type]
