from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from raydistill.analysis.greedy import prune_greedily
from raydistill.analysis.network import Network, read_network
from raydistill.datasets import DatasetConfig
from raydistill.tasks import Loading
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, evaluate_checkpoint

RUN = RunConfig("simplenet_cifar", DatasetConfig("digits"), batch_size=128, lr=0.01, effective_train_size=0.2)


@pytest.mark.slow
def test_every_step_is_a_checkpoint_that_is_what_its_line_says(
    network: Network, task: Classification, loading: Loading, tmp_path: Path
) -> None:
    path = tmp_path / "runs" / "greedy.pt"
    density = 1.0
    for step in prune_greedily(network, task, RUN, loading, path, 0.6, 0.3):
        assert step.density < density
        density = step.density
        kept = read_network(path)
        assert {n: t.shape for n, t in kept.model.state_dict().items()} == {
            n: t.shape for n, t in step.model.state_dict().items()
        }
        found = evaluate_checkpoint(path, task, "validation", "cpu")
        assert found.metrics["top1"] == pytest.approx(step.metrics["top1"])
    assert density <= 0.6


@pytest.mark.slow
def test_candidates_are_tuned_where_that_is_asked_for(
    network: Network, task: Classification, loading: Loading, tmp_path: Path
) -> None:
    few = replace(loading, fraction=0.2)
    plain = next(prune_greedily(network, task, RUN, few, tmp_path / "a.pt", 0.9, 0.3))
    tuned = next(prune_greedily(read_network(network.path), task, RUN, few, tmp_path / "b.pt", 0.9, 0.3, 1))
    assert tuned.metrics["loss"] != plain.metrics["loss"]
