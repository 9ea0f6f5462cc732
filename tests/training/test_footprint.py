"""What a network costs: counted by hand on a small one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn

from raydistill import datasets
from raydistill.datasets import DatasetConfig
from raydistill.metrics import Metric
from raydistill.tasks import Batch, Feed, Loading, Network, Task
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, fit
from raydistill.training.footprint import footprint, latency_of
from raydistill.training.latency import Timed, Turns


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency is not measured again where the machine is busy, which takes seconds; `test_latency` has that."""
    monkeypatch.setattr("raydistill.training.latency._ATTEMPTS", 1)


@pytest.mark.slow
def test_a_dense_simplenet(tmp_path: Path, once: None) -> None:
    """conv 3->6 5x5 on 28x28, conv 6->16 5x5 on 10x10, fc 400-120-84-10: LeNet-5's own numbers."""
    config = DatasetConfig("digits")
    run = RunConfig(
        "simplenet_cifar", config, epochs=1, batch_size=256, threads=1, out_dir=str(tmp_path), tensorboard=False
    )
    task = Classification(datasets.load(config))
    list(fit(run, task=task))
    figures = footprint(tmp_path / "checkpoint.pt", task)
    assert figures["macs"] == 450 * 28 * 28 + 2400 * 10 * 10 + 48000 + 10080 + 840
    parameters = 61_770 + 6 + 16 + 120 + 84 + 10
    assert figures["parameters"] == parameters
    assert figures["size_bytes"] == 4 * parameters
    assert figures["compressed_size_bytes"] == figures["size_bytes"]  # a bitmap would only add to a dense one
    assert "latency_ms" not in figures
    measured = footprint(tmp_path / "checkpoint.pt", task, latency=True)
    assert set(measured) - set(figures) == {"latency_ms", "latency_iqr_ms", "latency_busy"}
    assert measured["latency_ms"] > 0
    assert measured["latency_iqr_ms"] > 0
    assert measured["latency_busy"] in (0.0, 1.0)


class Rows(Task):
    """Rows of eight numbers; only their shape is asked for."""

    metrics: ClassVar = {"loss": Metric("min")}

    def feed(self, split: str, loading: Loading) -> Feed:
        raise NotImplementedError

    def loss(self, network: Network, batch: Batch) -> torch.Tensor:
        raise NotImplementedError

    def example_input(self, rows: int = 1) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(rows, 8),)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 4, bias=False)
        self.second = nn.Linear(4, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_dead_filters_are_taken_out_and_single_zeros_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Small()
    with torch.no_grad():
        model.first.weight.fill_(1.0)
        model.second.weight.fill_(1.0)
        model.first.weight[0] = 0.0  # a dead filter: with it goes a column of the second layer
        model.first.weight[1, :6] = 0.0
    content = {"run": {"arch": "x", "model_args": {}}}
    monkeypatch.setattr("raydistill.training.footprint.read_checkpoint", lambda path: content)
    monkeypatch.setattr("raydistill.training.footprint.model_of", lambda content, where, arch: model)
    figures = footprint("anything", Rows())
    assert figures["macs"] == 3 * 8 + 2 * 3
    assert figures["parameters"] == 3 * 8 - 6 + 2 * 3
    assert figures["size_bytes"] == 4 * (24 + 6)
    # 24 elements: 3 bytes of bitmap and 18 values of 4 bytes = 75, less than 96; the 6 dense ones stay 24
    assert figures["compressed_size_bytes"] == 75 + 24


@pytest.mark.slow
def test_latency_grows_with_the_network(once: None) -> None:
    small, large = nn.Linear(8, 8), nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(4)))
    quick, slow = latency_of(small, (torch.zeros(1, 8),)), latency_of(large, (torch.zeros(1, 2048),))
    assert quick["latency_ms"] < slow["latency_ms"]


def test_a_busy_machine_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Turns({"latency_ms": Timed(3.0, 2.5, 4.0, 10)}, True)
    monkeypatch.setattr("raydistill.training.footprint.at_rest", lambda passes, threads: busy)
    found = latency_of(nn.Linear(8, 8), (torch.zeros(1, 8),))
    assert found == {"latency_ms": 3.0, "latency_iqr_ms": 1.5, "latency_busy": 1.0}


@pytest.mark.slow
def test_what_cannot_be_traced_is_said() -> None:
    """Its figures are those of the network before thinning, which nobody would see in them."""
    from raydistill.compression.thinning import untraceable

    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(rows)).detach()

    assert untraceable(Detached().eval(), torch.zeros(1, 8)) == "autograd follows none of its layers"
    assert untraceable(Small().eval(), torch.zeros(1, 8)) == ""
