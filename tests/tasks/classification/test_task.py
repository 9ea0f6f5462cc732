"""Classification as a task: its arguments, what it says of itself, and whose preprocessing its images have."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raydistill import tasks
from raydistill.datasets import ArrayDataset, DatasetConfig
from raydistill.errors import CheckpointError, ConfigError
from raydistill.parts import Pixels
from raydistill.tasks import Loading, TaskConfig, Weights
from raydistill.tasks.classification import Classification, ImageShape
from raydistill.tasks.classification.loss import EarlyExit
from raydistill.tasks.classification.preprocessing import described

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)
DATA = ArrayDataset(
    "own", ("a", "b", "c"), (0.5,) * 3, (0.2,) * 3, "none", IMAGES, np.arange(12) % 3, IMAGES[:4], np.arange(4) % 3,
    np.arange(9), np.arange(9, 12),
)  # fmt: skip
OTHER = replace(DATA.preprocessing, mean=(0.1, 0.2, 0.3))


def weights(content: dict[str, Any] | None, **said: Any) -> Weights:
    return Weights("mine:net", {}, content, "c.pt", Pixels(**said))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (
            {"loss_weight": [0.4]},
            "task.args.loss_weight: unknown key, got [0.4]; it takes loss_weights, thresholds, loss",
        ),
        ({"multi_label": "yes"}, "task.args.multi_label: must be true or false, got 'yes'"),
        ({"multi_label": True, "loss_weights": [0.4]}, "task.args.multi_label: early exits are for one label an image"),
        ({"loss": "cross_entropy"}, "task.args.loss: must be one's own, as pkg.mod:LOSS, got 'cross_entropy'"),
        (
            {"multi_label": True},
            "task.args.multi_label: dataset 'digits' has one label an image, got True; leave it out",
        ),
    ],
)
def test_wrong_arguments_are_one_line(args: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tasks.load(TaskConfig(args=args), DatasetConfig("digits"), Weights("simplenet_cifar"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_its_metrics_depend_on_its_arguments_and_its_exits() -> None:
    assert list(Classification.judged_by()) == ["top1", "top5", "loss"]
    assert list(Classification.judged_by(multi_label=True)) == ["map", "f1", "loss"]
    exits = [f"exit{i}/{kind}" for i in range(3) for kind in ("top1", "taken")]
    assert list(Classification(DATA, early_exit=EarlyExit((0.4, 0.2), (0.9, 0.9))).metrics)[3:] == exits
    assert list(Classification(DATA, early_exit=EarlyExit((0.4,))).metrics)[3:] == ["exit0/top1", "exit1/top1"]


def test_what_is_foreseen_is_what_is_loaded() -> None:
    seen = Classification.foreseen(DatasetConfig("digits"))
    assert (
        seen
        == ImageShape(10, (3, 32, 32))
        == tasks.load(TaskConfig(), DatasetConfig("digits"), Weights("mine:net")).shape
    )  # type: ignore[attr-defined]
    assert Classification.foreseen(DatasetConfig("imagefolder")) is None
    assert seen.example_input(4)[0].shape == (4, 3, 32, 32)


def test_a_networks_loss_and_figures_on_batches_by_hand() -> None:
    """One that always says the first class, with certainty 1/2."""

    class First(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.log(torch.tensor([[0.5, 0.25, 0.25]])).expand(len(images), 3)

    task, loading = Classification(DATA), Loading(CPU, 2)
    (images, labels), *_ = task.feed("test", loading).epoch(0)
    assert torch.allclose(images, (torch.from_numpy(IMAGES[:2]).permute(0, 3, 1, 2) / 255 - 0.5) / 0.2, atol=1e-5)
    assert float(task.loss(First(), (images, labels))) == pytest.approx((math.log(2) + math.log(4)) / 2)
    found = task.evaluate(First(), task.feed("test", loading), loading)  # labels 0, 1, 2, 0
    assert found == {"top1": 0.5, "top5": 1.0, "loss": pytest.approx((2 * math.log(2) + 2 * math.log(4)) / 4)}


def test_images_are_prepared_as_weights_want_them_if_anybody_says_it() -> None:
    task, own = Classification(DATA), DATA.preprocessing
    said = {"run": {"arch": "mine:net"}, **described(OTHER)}
    plain = {"run": {"arch": None}, "plain": True}
    pixels = {"mean": (0.3,) * 3, "std": (0.9,) * 3}
    assert task.wanted_by(weights(said)).preprocessing == OTHER
    assert task.wanted_by(weights(said), DatasetConfig(image_size=(4, 4))).preprocessing.image_size == (4, 4)
    assert task.wanted_by(weights(plain)).preprocessing == own
    assert task.wanted_by(weights(plain, **pixels)).preprocessing == replace(own, **pixels)
    for_others = task.wanted_by(weights(said))
    assert for_others.wanted_by(weights(None)).preprocessing == own  # what is trained anew has the data's own
    assert for_others.wanted_by(weights(plain)).preprocessing == OTHER  # they say nothing: as it was loaded for them
    (images, _), *_ = for_others.feed("test", Loading(CPU, 1)).epoch(0)
    mean = torch.tensor(OTHER.mean).reshape(3, 1, 1)
    assert torch.allclose(images[0], (torch.from_numpy(IMAGES[0]).permute(2, 0, 1) / 255 - mean) / 0.2, atol=1e-6)


def test_what_it_says_of_itself() -> None:
    task = Classification(DATA, OTHER)
    assert task.described() == {"classes": ["a", "b", "c"], "num_classes": 3, **described(OTHER)}
    config = DatasetConfig("digits")
    assert task.identity(config)["preprocessing"] == OTHER.to_plain()
    assert "preprocessing" not in Classification(DATA).identity(config)
    assert "early_exit" not in task.identity(config)
    assert task.nbytes == DATA.nbytes
    assert "mean 0.100 0.200 0.300" in task.note
    task.check_knows({"plain": True}, "c.pt")
    task.check_knows({"num_classes": 3}, "c.pt")
    with pytest.raises(CheckpointError, match=r"^c.pt: knows other classes: own has 3, got 10$"):
        task.check_knows({"num_classes": 10}, "c.pt")


def test_early_exits_are_those_of_the_run_unless_it_has_its_own() -> None:
    run = {"early_exit": {"loss_weights": [0.4], "thresholds": [0.9]}}
    assert Classification(DATA).as_trained(run).early_exit == EarlyExit((0.4,), (0.9,))
    own = Classification(DATA, early_exit=EarlyExit((0.1,)))
    assert own.as_trained(run) is own
    bare = Classification(DATA)
    assert bare.as_trained({}) is bare
