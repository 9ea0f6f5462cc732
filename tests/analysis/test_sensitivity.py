"""Measured in parts; what the command prints of it is tested with the command."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raydistill.analysis.network import Network, read_network
from raydistill.analysis.sensitivity import KeptPoints, Sensitivity, check_starts_a_sweep
from raydistill.compression.sensitivity import Point
from raydistill.datasets import DatasetConfig
from raydistill.errors import CheckpointError, ConfigError, DataError
from raydistill.tasks import TaskConfig
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, evaluate_checkpoint, fit
from raydistill.training.checkpoint import read_checkpoint, write_checkpoint
from tests.tasks.language_model.texts import folder_of

CPU = torch.device("cpu")
LEVELS = (0.0, 0.5, 0.9)


@pytest.fixture
def subject(network: Network) -> Sensitivity:
    return Sensitivity(network, CPU, "validation", batch_size=64)


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again(subject: Sensitivity, tmp_path: Path) -> None:
    names = ["fc1.weight", "fc2.weight"]
    kept = KeptPoints(tmp_path, subject.identity)
    measuring = subject.measure(LEVELS, "element", names, kept)
    first = [next(measuring) for _ in range(4)]
    measuring.close()
    kept.write()
    again = KeptPoints(tmp_path, subject.identity)
    assert [(p.weight, p.level) for p in again.points] == [(p.weight, p.level) for p in first]
    asked: list[int] = []
    evaluate = subject.evaluate
    subject.evaluate = lambda model: asked.append(1) or evaluate(model)  # type: ignore[method-assign]
    whole = list(subject.measure(LEVELS, "element", names, again))
    assert [(p.weight, p.level) for p in whole] == [(n, level) for n in names for level in LEVELS]
    assert len(asked) == 2
    assert again.among(names, LEVELS) == 6


@pytest.mark.slow
def test_level_zero_is_the_network_itself(subject: Sensitivity, task: Classification, tmp_path: Path) -> None:
    kept = KeptPoints(tmp_path, subject.identity)
    (dense,) = subject.measure((0.0,), "filter", ["conv1.weight"], kept)
    expected = evaluate_checkpoint(subject.network.path, task, "validation", "cpu")
    assert dense.metrics["top1"] == pytest.approx(expected.metrics["top1"])
    assert subject.metric[0] == "top1"


def test_another_analysis_in_the_folder_is_refused(subject: Sensitivity, tmp_path: Path) -> None:
    kept = KeptPoints(tmp_path, subject.identity)
    kept.add(Point("fc1.weight", 0.0, 0.0, {"top1": 0.5}))
    kept.write()
    with pytest.raises(ConfigError, match="holds an analysis with another split, 'validation', got 'test'"):
        KeptPoints(tmp_path, {**subject.identity, "split": "test"})
    (tmp_path / "sensitivity.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read, so the analysis cannot go on"):
        KeptPoints(tmp_path, subject.identity)


@pytest.mark.slow
def test_some_samples_are_always_the_same(network: Network) -> None:
    few = [Sensitivity(read_network(network.path), CPU, "test", samples=40) for _ in range(2)]
    assert [subject.samples for subject in few] == [40, 40]
    found = [subject.evaluate(subject.model) for subject in few]
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_checkpoint_without_a_history_starts_no_sweep(network: Network, tmp_path: Path) -> None:
    check_starts_a_sweep(network)
    write_checkpoint(tmp_path / "bare.pt", {**read_checkpoint(network.path), "history": []})
    with pytest.raises(ConfigError, match="needs a checkpoint that raydistill trained"):
        check_starts_a_sweep(read_network(tmp_path / "bare.pt"))


@pytest.mark.slow
def test_a_network_of_another_task_is_measured_by_its_own_metric(tmp_path: Path) -> None:
    args = {"width": 8, "depth": 1, "heads": 2, "dropout": 0.0, "context": 6}
    task = TaskConfig("language_model", {"bptt": 6})
    texts = folder_of(tmp_path, 100)
    config = RunConfig(
        "decoder_lm", DatasetConfig(data_dir=str(texts)), model_args=args, task=task, epochs=1, batch_size=4, lr=0.2,
        precision="fp32", device="cpu", threads=1, tensorboard=False, out_dir=str(tmp_path / "run"),
    )  # fmt: skip
    (last,) = fit(config)
    network = read_network(Path(str(last.checkpoint)))
    assert network.model(*network.example_input()).shape == (1, 6, 11)  # of its own context and vocabulary
    subject = Sensitivity(network, CPU, "validation", data_dir=texts, task=task)
    assert subject.metric[0] == "perplexity"
    points = list(subject.measure((0.0, 0.9), "element", ["decoder.weight"], KeptPoints(tmp_path, subject.identity)))
    assert points[0].metrics == pytest.approx(last.metrics)
    assert points[1].metrics["perplexity"] > 1.02 * points[0].metrics["perplexity"]
    texts.joinpath("grammar.train.txt").write_text("other words\n" * 60)
    other = TaskConfig("language_model", {"bptt": 6, "tokens": "bytes"})
    with pytest.raises(CheckpointError, match="knows another vocabulary"):
        Sensitivity(network, CPU, "validation", data_dir=texts, task=other)
