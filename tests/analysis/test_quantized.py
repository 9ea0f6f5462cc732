"""Checkpoints quantized: Distiller's own, whose shapes told all of it before; configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from raydistill.analysis.network import read_network
from raydistill.analysis.quantized import (
    Options,
    Steps,
    calibration_of,
    mean_loss_of,
    quantize,
    quantizer_of_file,
    training_batches,
    write_quantized,
)
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.errors import ConfigError
from raydistill.tasks import Loading, Task
from raydistill.tasks.feeds import TensorFeed
from raydistill.training.loop import evaluate_checkpoint


class Noise(Task):
    """Images of noise whose classes a network's own answers are."""

    name = "noise"

    def __init__(self, answers: Any) -> None:
        self.images = torch.randn(48, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.classes = answers(self.images).argmax(1)

    def feed(self, split: str, loading: Loading) -> TensorFeed:
        return TensorFeed((self.images, self.classes), split, loading)

    def loss(self, network: Any, batch: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(network(batch[0]), batch[1])

    def example_input(self, rows: int = 1) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(rows, 3, 32, 32),)


LOADING = Loading(torch.device("cpu"), 16, fraction=0.5)


def distillers(compat: Path) -> Path:
    return next(path for path in sorted((compat / "checkpoints").iterdir()) if path.name.endswith((".pth", ".tar")))


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_distillers_checkpoint_is_folded_quantized_written_and_read_again(
    compat: Path, tmp_path: Path, dynamic: bool
) -> None:
    network = read_network(distillers(compat), "resnet20_cifar")
    task = Noise(network.model)
    before = network.model(task.images).detach()
    report, _ = quantize(network, task, LOADING, PostTrainLinearQuantizer("q", per_channel_wts=True), dynamic)
    assert report.folded
    after = network.model(task.images).detach()
    assert 0 < float((after - before).norm() / before.norm()) < 0.2
    write_quantized(network, report, tmp_path / "q.pt")
    again = read_network(tmp_path / "q.pt", "resnet20_cifar")
    assert torch.equal(again.model(task.images), after)
    figures = evaluate_checkpoint(tmp_path / "q.pt", task, "test", "cpu", arch="resnet20_cifar")
    assert figures.metrics["loss"] == pytest.approx(
        float(task.loss(network.model, (task.images, task.classes))), rel=0.05
    )
    with pytest.raises(ConfigError, match="is quantized already"):
        quantize(again, task, LOADING, PostTrainLinearQuantizer("q"))


@pytest.mark.slow
def test_calibration_reads_the_part_of_the_training_data(compat: Path) -> None:
    network = read_network(distillers(compat), "resnet20_cifar")
    task = Noise(network.model)
    assert sum(len(inputs[0]) for inputs in training_batches(task, LOADING)()) == 24
    known = calibration_of(network, task, LOADING)
    assert known["conv1"].inputs[0].total_numel == 24 * 3 * 32 * 32
    assert "bn1" in known


@pytest.mark.slow
def test_the_search_lowers_the_loss_that_it_is_told(compat: Path) -> None:
    network = read_network(distillers(compat), "resnet20_cifar")
    task = Noise(network.model)
    loading = Loading(torch.device("cpu"), 16, fraction=0.25)
    asked = Options(init="L2", max_iterations=1, max_evaluations=12)
    _, found = quantize(network, task, loading, PostTrainLinearQuantizer("q", 4, 4), search=asked)
    assert found is not None
    assert found.losses["together"] <= found.losses["before"]
    assert mean_loss_of(network, task, loading)() == pytest.approx(found.losses["together"], rel=1e-4)


@pytest.mark.slow
def test_equalized_networks_are_folded_first_and_read_again(compat: Path, tmp_path: Path) -> None:
    network = read_network(distillers(compat), "resnet20_cifar")
    task = Noise(network.model)
    before = network.model(task.images).detach()
    steps = Steps(equalize=True, rounding=3, biases=True)
    report, _ = quantize(network, task, LOADING, PostTrainLinearQuantizer("q"), steps=steps)
    assert len(report.folded.norms) > 10
    after = network.model(task.images).detach()
    assert float((after - before).norm() / before.norm()) < 0.3
    write_quantized(network, report, tmp_path / "q.pt")
    assert torch.equal(read_network(tmp_path / "q.pt", "resnet20_cifar").model(task.images), after)
    said = {"conv1": {"output": dict.fromkeys(("min", "max", "avg_min", "avg_max", "mean"), 0.0)}}
    other = read_network(distillers(compat), "resnet20_cifar")
    with pytest.raises(ConfigError, match="equalize: changes what layers give"):
        quantize(other, task, LOADING, PostTrainLinearQuantizer("q", model_activation_stats=said), steps=steps)


def test_a_file_names_one_quantizer(tmp_path: Path) -> None:
    path = tmp_path / "q.yaml"
    entry = {"class": "PostTrainLinearQuantizer", "bits_parameters": 6}
    path.write_text(yaml.dump({"quantizers": {"q": entry}}))
    assert quantizer_of_file(path).settings("x").bits_weights == 6
    for content in ({"quantizers": {"a": entry, "b": entry}}, {"quantizers": [entry]}, {"pruners": {}}):
        path.write_text(yaml.dump(content))
        with pytest.raises(ConfigError, match="must name one PostTrainLinearQuantizer"):
            quantizer_of_file(path)
