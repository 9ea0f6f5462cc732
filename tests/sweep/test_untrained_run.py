"""A real sweep whose trials have no epochs: each prunes and rounds the baseline at once, and is a trial like others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raydistill.records import BASELINE, FINISHED
from raydistill.sweep.record.journal import read_journal
from raydistill.training import read_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.long]  # tests/training/test_untrained.py: such a run


@pytest.mark.usefixtures("spared")
def test_trials_of_no_epochs_prune_validate_and_are_trials_like_any_other(
    write_sweep: Callable[..., Path], sweep_here: Callable[..., str], tmp_path: Path
) -> None:
    write_sweep(
        ("training/epochs", 0),
        ("baseline/epochs", 1),
        ("schedule/pruners", {"p": {"class": "SparseGPTPruner", "levels": {"fc*.weight": 0.5, "*": 0.1}}}),
        ("schedule/quantizers", {"q": {"class": "PostTrainLinearQuantizer", "per_channel_wts": True}}),
        (
            "schedule/policies",
            [
                {"pruner": {"instance_name": "p"}, "epochs": [0]},
                {"quantizer": {"instance_name": "q", "args": {"evidence_minibatches": 2}}, "epochs": [0]},
            ],
        ),
        (
            "search",
            {
                "per_layer": [
                    {"weights": ["fc*.weight"], "levels": {"uniform": [0.3, 0.9]}},
                    {"weights": ["fc1.weight"], "bits_weights": {"choice": [3, 5]}},
                ]
            },
        ),
        ("trial_scheduler", {"name": "none"}),
        ("searcher", {"name": "sobol"}),
        ("num_samples", 2),
    )
    shown = sweep_here("space.yaml", "--cpu")
    assert "Pareto front" in shown
    records = read_journal(tmp_path / "sweeps/tiny/journal.jsonl").records
    assert len(list((tmp_path / "sweeps/tiny/statistics").iterdir())) == 2, "their weights differ"
    dense = read_checkpoint(next((tmp_path / "sweeps/baselines").rglob("checkpoint.pt")))["model"]
    for trial in (record for key, record in records.items() if key != BASELINE):
        assert trial.state == FINISHED
        assert trial.last is not None
        assert trial.last.train_loss is None
        bits = trial.values["per_layer.fc1.weight.bits_weights"]
        for path, level in ((path, value) for path, value in trial.values.items() if path.endswith(".levels")):
            name = path.removeprefix("per_layer.").removesuffix(".levels")
            assert trial.last.layer_sparsity[name] == pytest.approx(float(level), abs=0.01)
        content = read_checkpoint(tmp_path / f"sweeps/tiny/trials/{trial.trial_id}/checkpoint.pt")
        (rounded,) = [change for change in content["structure"] if change["change"] == "quantized"]
        assert rounded["weights"]["fc1.weight"]["args"]["bits"] == bits
        assert rounded["weights"]["fc2.weight"]["args"]["bits"] == 8
        model = content["model"]
        assert torch.equal(model["fc1.bias"], dense["fc1.bias"]), "nothing is trained"
