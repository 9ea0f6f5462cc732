from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raydistill.analysis.network import Network, read_network
from raydistill.datasets import DatasetConfig
from raydistill.errors import CheckpointError
from raydistill.tasks.classification import Classification
from raydistill.training.checkpoint import read_checkpoint, write_checkpoint


@pytest.mark.slow
def test_it_is_what_the_checkpoint_says(network: Network, trained: Path) -> None:
    assert (network.arch, network.path) == ("simplenet_cifar", trained)
    assert [tuple(value.shape) for value in network.example_input()] == [(1, 3, 32, 32)]
    assert not network.model.training
    assert torch.equal(network.model.fc1.weight, read_checkpoint(trained)["model"]["fc1.weight"])


@pytest.mark.slow
def test_its_data_are_as_it_wants_them_unless_the_user_says_otherwise(
    trained: Path, task: Classification, tmp_path: Path
) -> None:
    seen = {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.4, 0.5], "image_size": [32, 32]}
    write_checkpoint(tmp_path / "other.pt", {**read_checkpoint(trained), "preprocessing": seen})
    other = read_network(tmp_path / "other.pt")
    assert other.task(task).preprocessing.mean == (0.5, 0.4, 0.3)
    wished = other.task(task, DatasetConfig("digits", image_size=(24, 16)))
    assert (wished.preprocessing.image_size, wished.preprocessing.mean) == ((24, 16), (0.5, 0.4, 0.3))


@pytest.mark.slow
def test_distillers_checkpoints_say_neither_and_have_both(compat: Path) -> None:
    found = read_network(compat / "checkpoints" / "resnet20_cifar10_checkpoint.pth.tar", "resnet20_cifar")
    assert found.arch == "resnet20_cifar"
    assert found.content["mean"] == [0.5, 0.5, 0.5]
    assert [tuple(value.shape) for value in found.example_input()] == [(1, 3, 32, 32)]


def test_another_architecture_is_one_line(trained: Path) -> None:
    with pytest.raises(CheckpointError, match="is of simplenet_cifar, got 'resnet20_cifar'"):
        read_network(trained, "resnet20_cifar")
