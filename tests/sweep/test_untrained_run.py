"""A real sweep whose trials have no epochs: each prunes the baseline at once, and stands in journal and front."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raydistill.records import BASELINE, FINISHED
from raydistill.sweep.record.journal import read_journal
from raydistill.training import read_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.usefixtures("spared")
def test_trials_of_no_epochs_prune_validate_and_are_trials_like_any_other(
    write_sweep: Callable[..., Path], sweep_here: Callable[..., str], tmp_path: Path
) -> None:
    write_sweep(
        ("training/epochs", 0),
        ("baseline/epochs", 1),
        ("schedule/pruners", {"p": {"class": "SparseGPTPruner", "levels": {"fc*.weight": 0.5, "*": 0.1}}}),
        ("schedule/policies", [{"pruner": {"instance_name": "p"}, "epochs": [0]}]),
        ("search", {"per_layer": [{"weights": ["fc*.weight"], "levels": {"uniform": [0.3, 0.9]}}]}),
        ("trial_scheduler", {"name": "none"}),
        ("searcher", {"name": "sobol"}),
        ("num_samples", 2),
    )
    shown = sweep_here("space.yaml", "--cpu")
    assert "Pareto front" in shown
    records = read_journal(tmp_path / "sweeps/tiny/journal.jsonl").records
    dense = read_checkpoint(next((tmp_path / "sweeps/baselines").rglob("checkpoint.pt")))["model"]
    for trial in (record for key, record in records.items() if key != BASELINE):
        assert trial.state == FINISHED
        assert trial.last is not None
        assert trial.last.train_loss is None
        for path, level in trial.values.items():
            name = path.removeprefix("per_layer.").removesuffix(".levels")
            assert trial.last.layer_sparsity[name] == pytest.approx(float(level), abs=0.01)
        model = read_checkpoint(tmp_path / f"sweeps/tiny/trials/{trial.trial_id}/checkpoint.pt")["model"]
        assert torch.equal(model["fc1.bias"], dense["fc1.bias"]), "nothing is trained"
