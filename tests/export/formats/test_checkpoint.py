"""What is delivered as a checkpoint is one of raydistill's own again: loaded, exported, trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raydistill.datasets import DatasetConfig
from raydistill.export import asked_for, deployed, write_artifact
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, evaluate_checkpoint, fit, load_model, read_checkpoint


@pytest.mark.slow
@torch.no_grad()
def test_it_goes_on(trained: Path, task: Classification, tmp_path: Path) -> None:
    write_artifact(deployed(trained), asked_for(["checkpoint"], "f"), tmp_path / "out", source={}, latency=False)
    path = tmp_path / "out" / "checkpoint.pt"
    before, after = (evaluate_checkpoint(one, task, "test", "cpu") for one in (trained, path))
    assert after.metrics["top1"] == before.metrics["top1"]
    assert load_model(path).conv2.weight.shape[0] == 8  # half of its 16 filters
    assert [change["change"] for change in read_checkpoint(path)["structure"]] == ["thinned"]
    again = deployed(path)  # there is nothing left to do
    assert again.deployment.changes == ()
    run = RunConfig(
        "simplenet_cifar", DatasetConfig("digits"), epochs=1, batch_size=256, threads=1, device="cpu",
        init_from=str(path), out_dir=str(tmp_path / "more"), tensorboard=False,
    )  # fmt: skip
    with torch.enable_grad():
        *_, last = fit(run, task=task)
    assert last.metrics["top1"] > 0.5
    assert load_model(tmp_path / "more" / "checkpoint.pt").conv2.weight.shape[0] == 8
