"""A whole sweep with a user's own searcher, trial scheduler, objective, loss, augmentation and parts of a pruner."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

PARTS = {
    "class": "RankedPruner",
    "final_sparsity": 0.5,
    "weights": ["fc1.weight", "fc2.weight"],
    "ranking": "tests.compression.own:ORDER",
    "rate": "tests.compression.own:STEPS",
    "granularity": "tests.compression.own:PAIRS",
    "scope": "tests.compression.own:SPARING",
}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long  # tests/cli/test_own_folder.py checks such a sweep, and test_run.py sweeps
def test_it_is_swept(write_sweep: Callable[..., Path], sweep_here: Callable[..., str], tmp_path: Path) -> None:
    file = write_sweep(
        ("training/epochs", 2),
        ("baseline/epochs", 2),
        ("dataset/augment", "tests.tasks.classification.own:ERASED"),
        ("task", {"args": {"loss": "tests.tasks.classification.own:SMOOTHED"}}),
        ("schedule/pruners", {"own": PARTS}),
        ("schedule/policies", [
            {"pruner": {"instance_name": "own"}, "starting_epoch": 0, "ending_epoch": 2, "frequency": 1},
        ]),
        ("search", {"pruners.own.final_sparsity": {"uniform": [0.4, 0.8]}}),
        ("searcher", {"name": "tests.search.own:Ladder", "args": {"step": 0.5}}),
        ("trial_scheduler", {"name": "tests.search.own:Patience", "args": {"epochs": 2}}),
        ("objectives", {"top1": "max", "tests.training.own:ENERGY": "min"}),
        ("constraints", ["tests.training.own:CLASSES >= 10"]),
        ("num_samples", 2),
    )  # fmt: skip
    shown = sweep_here(file, "--cpu")
    folder = tmp_path / "sweeps/tiny"
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    values = [event["record"]["values"] for event in events if event["event"] == "trial_started"]
    assert values == [{"pruners.own.final_sparsity": 0.4}, {"pruners.own.final_sparsity": pytest.approx(0.6)}]
    with (folder / "pareto.csv").open() as text:
        rows = {row["trial_id"]: row for row in csv.DictReader(text)}
    assert set(rows) == {"baseline", "t0000", "t0001"}
    energies = [float(rows[name]["energy_nj"]) for name in ("baseline", "t0000", "t0001")]
    assert energies[0] > energies[1] > energies[2] > 0
    assert {row["classes"] for row in rows.values()} == {"10"}
    assert "energy_nj" in shown
    sweep_here(file, "--cpu", "--resume")
