"""A sweep whose trials train on two workers each, through real Ray: Tune over Train."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raydistill import datasets
from raydistill.errors import ConfigError, ResourceError
from raydistill.records import BASELINE, FINISHED, STOPPED
from raydistill.sweep.file.load import load_sweep
from raydistill.sweep.planning.plan import plan_sweep
from raydistill.sweep.run import run_sweep
from raydistill.tasks.classification import Classification, ImageShape
from raydistill.training import fit, read_checkpoint

CIFAR = ImageShape(10, (3, 32, 32))

CORES = len(os.sched_getaffinity(0))
TEAMS = (
    ("training", {"epochs": 3, "batch_size": 256, "lr": 0.005, "deterministic": True, "precision": "fp32"}),
    ("num_samples", 2),
    ("trial_scheduler", {"name": "median", "grace_period": 1}),
    ("workers_per_trial", 2),
    ("resources_per_trial", {"cpu": CORES / 2}),  # one trial takes the whole machine, its own process nothing of it
    ("search", {"per_layer": {"weights": ["fc1.weight"], "final_sparsity": {"uniform": [0.3, 0.95]}}}),
)


@pytest.mark.long  # tests/cluster/test_trainer.py has workers that train what one process does
@pytest.mark.ray
def test_trials_on_workers_are_what_one_process_trains(
    write_sweep: Callable[..., Path], dense: Path, spared: None, tmp_path: Path
) -> None:
    given = {"checkpoint": str(next(dense.rglob("checkpoint.pt")))}
    sweep = load_sweep(write_sweep(*TEAMS, ("baseline", given)))
    outcome = run_sweep(sweep, tmp_path / "sweeps")
    trials = {key: record for key, record in outcome.records.items() if key != BASELINE}
    assert sorted(trials) == ["t0000", "t0001"]
    assert {record.state for record in trials.values()} <= {FINISHED, STOPPED}
    first = trials["t0000"]  # nothing to be held against: it runs to its end
    assert first.state == FINISHED
    assert first.last is not None
    assert first.last.footprint["macs"] > 0
    plan = plan_sweep(sweep, CIFAR).trials[0]
    baseline = str(outcome.records[BASELINE].checkpoint)
    alone = plan.placed(baseline, tmp_path / "alone", 1, "cpu", "fp32").run
    for _ in fit(alone, task=Classification(datasets.load(sweep.dataset))):
        pass
    expected, found = (read_checkpoint(path) for path in (tmp_path / "alone" / "checkpoint.pt", str(first.checkpoint)))
    for name, weight in expected["model"].items():
        torch.testing.assert_close(found["model"][name], weight, atol=1e-5, rtol=0)
    for name, mask in expected["scheduler"]["masks"].items():
        assert torch.equal(found["scheduler"]["masks"][name], mask), name


def test_too_many_workers_are_refused_before_ray_starts(write_sweep: Callable[..., Path], tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(("workers_per_trial", CORES + 1), ("resources_per_trial", {"cpu": 1})))
    with pytest.raises(ResourceError, match=rf"workers_per_trial: asks for {CORES + 1} workers of 1 CPU"):
        run_sweep(sweep, tmp_path / "sweeps")
    assert not (tmp_path / "sweeps" / "tiny" / "journal.jsonl").exists()
    with pytest.raises(ConfigError, match="workers_per_trial: must be at least 1, got 0"):
        load_sweep(write_sweep(("workers_per_trial", 0)))
