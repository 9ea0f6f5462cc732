"""A real sweep whose trials branch off a trunk; another one finds the trunk there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from raydistill.training import read_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.slow]
BRANCHES = [
    ("trunk", {"epochs": 4, "initial_sparsity": 0.2, "final_sparsity": 0.9, "weights": ["fc*.weight"]}),
    ("search", {"trunk.sparsity": {"choice": [0.57, 0.85]}}),
    ("searcher", {"name": "grid"}),
    ("schedule", {"version": 1}),
    ("training/epochs", 2),
    ("num_samples", 2),
]


def test_trials_branch_off_a_trunk_that_is_trained_once(
    write_sweep: Callable[..., Path], sweep_here: Callable[..., str], spared: None, tmp_path: Path
) -> None:
    file = write_sweep(*BRANCHES)
    said = sweep_here(file, "--storage", "sweeps")
    assert "training the trunk, 4 epochs" in said
    assert "trunk epoch 4/4, validation top1" in said
    (folder,) = (tmp_path / "sweeps" / "trunks").iterdir()
    assert sorted(path.name for path in folder.glob("after-*")) == [f"after-000{n}.pt" for n in (1, 2, 3, 4)]
    events = [json.loads(line) for line in (tmp_path / "sweeps" / "tiny" / "journal.jsonl").read_text().splitlines()]
    started = {e["record"]["trial_id"]: e["record"] for e in events if e["event"] == "trial_started"}
    assert len(started) == 2
    for trial_id, record in started.items():
        # by hand: of the fc layers 0.2, 0.6, 0.8 and 0.9, of all weights 0.19, 0.57, 0.76 and 0.86
        epochs = {0.57: 2, 0.85: 4}[record["values"]["trunk.sparsity"]]
        assert record["extra"]["branch"] == f"trunk, {epochs} epochs"
        trained = read_checkpoint(tmp_path / "sweeps" / "tiny" / "trials" / trial_id / "checkpoint.pt")
        begun = read_checkpoint(folder / f"after-000{epochs}.pt")
        for name in ("fc1.weight", "fc2.weight", "fc3.weight"):
            assert torch.equal(trained["model"][name] == 0, begun["model"][name] == 0)
        assert int((trained["model"]["conv2.weight"] == 0).sum()) == 0
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.pt")}
    said = sweep_here(file, "--storage", "sweeps", "--name", "again", "--num-samples", 1)
    assert "the trunk" not in said
    assert times == {path: path.stat().st_mtime_ns for path in folder.glob("*.pt")}
    cut = folder / "after-0002.pt"
    whole = {path: read_checkpoint(path)["model"] for path in folder.glob("after-*")}
    cut.write_bytes(cut.read_bytes()[:-100])
    said = sweep_here(file, "--storage", "sweeps", "--name", "third", "--num-samples", 1)
    assert f"warning: the trunk is trained again: {cut}" in said
    for path, weights in whole.items():
        assert all(torch.equal(weights[name], weight) for name, weight in read_checkpoint(path)["model"].items())
