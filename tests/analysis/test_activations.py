from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from raydistill.analysis.activations import CHANNELS, HISTOGRAMS, write_activations
from raydistill.analysis.network import Network
from raydistill.tasks import Loading
from raydistill.tasks.classification import Classification
from raydistill.tasks.classification.feed import EvalFeed


@pytest.mark.slow
def test_the_files_agree_with_the_activations(
    network: Network, task: Classification, loading: Loading, tmp_path: Path
) -> None:
    count = write_activations(network, task, loading, tmp_path)
    assert count == len(task.dataset.validation_index)
    outputs: list[torch.Tensor] = []
    handle = network.model.fc1.register_forward_hook(lambda module, given, output: outputs.append(output))
    with torch.no_grad():
        for images, _ in EvalFeed(task.dataset, "validation", 50, "cpu"):
            network.model(images)
    handle.remove()
    by_hand = torch.cat(outputs).relu().mean(0)  # a layer's activation is what its ReLU gives
    with (tmp_path / CHANNELS).open() as file:
        rows = [row for row in csv.DictReader(file) if row["layer"] == "fc1"]
    assert len(rows) == 120
    found = [float(row["mean"]) for row in rows]
    assert found == pytest.approx(by_hand.tolist(), abs=1e-4)
    with (tmp_path / HISTOGRAMS).open() as file:
        bins = [row for row in csv.DictReader(file) if row["layer"] == "fc1"]
    assert sum(int(row["count"]) for row in bins) == 120 * count
