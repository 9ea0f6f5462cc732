"""Which preprocessing weights want: what their file says, what the user says, what nobody says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raydistill.datasets import ArrayDataset, Preprocessing
from raydistill.errors import CheckpointError
from raydistill.parts import Pixels
from raydistill.tasks import Weights
from raydistill.tasks.classification.preprocessing import (
    as_said,
    described,
    difference,
    of_checkpoint,
    of_weights,
    sized,
    translated,
)

THEIRS = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (8, 8), 10)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
DATA = ArrayDataset(
    "own", ("a", "b"), (0.5,) * 3, (0.2,) * 3, "none", IMAGES, np.array([0, 1]), IMAGES, np.array([0, 1]),
    np.array([0]), np.array([1]),
)  # fmt: skip


def test_a_checkpoint_gives_back_what_it_was_told() -> None:
    content = {"run": {"arch": "simplenet_cifar"}, **described(THEIRS)}
    assert of_checkpoint(content, "c.pt") == THEIRS
    older = {key: value for key, value in content.items() if key != "preprocessing"}  # before it was a value of its own
    assert of_checkpoint(older, "c.pt") == replace(THEIRS, resize=None)
    assert of_checkpoint({"run": {"arch": "simplenet_cifar"}, "plain": True}, "c.pt") is None
    with pytest.raises(CheckpointError, match=r"^c.pt: is damaged: its preprocessing cannot be read"):
        of_checkpoint({**content, "preprocessing": {**THEIRS.to_plain(), "std": [0.4, 0.5, 0.0]}}, "c.pt")


def test_weights_that_say_nothing_have_none_and_published_ones_have_torchvisions() -> None:
    assert of_weights(Weights("resnet18")) is None
    assert of_weights(Weights("mine:net", {"pretrained": True})) is None
    found = of_weights(Weights("resnet18", {"pretrained": True}))
    assert found is not None
    assert (found.mean, found.std, found.image_size, found.resize) == (
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (224, 224), 256,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "size", "expected"),
    [
        (None, (4, 4), None),
        (THEIRS, None, THEIRS),
        (THEIRS, (8, 8), THEIRS),
        (THEIRS, [4, 6], replace(THEIRS, image_size=(4, 6), resize=None)),
    ],
)
def test_a_size_that_is_asked_for_goes_before_theirs(wanted: Any, size: Any, expected: Any) -> None:
    assert sized(wanted, size) == expected


def test_what_the_user_says_is_the_datasets_own_but_for_that() -> None:
    said = as_said(Pixels(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)), DATA)
    assert said == replace(DATA.preprocessing, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    assert as_said(Pixels(), DATA) is None
    assert as_said(Pixels(mean=(0.1,), std=(1.0,)), DATA) is None  # of another number of channels


def test_the_difference_is_said_in_words() -> None:
    assert difference(None, DATA) == difference(DATA.preprocessing, DATA) == ""
    line = difference(replace(DATA.preprocessing, mean=(0.5, 0.5, 0.25)), DATA)
    assert line == (
        "images are prepared as the weights want them: mean 0.500 0.500 0.250 (the dataset's own: 0.500 0.500 0.500)"
    )


class Kept(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return images.mean((2, 3))


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_a_translated_network_sees_what_its_own_preprocessing_would_have_given(order: str) -> None:
    given = DATA.preprocessing
    wanted = replace(given, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), channels=order)
    pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).double() / 255

    def prepared(seen: Preprocessing) -> torch.Tensor:
        values = pixels.flip(1) if seen.channels == "bgr" else pixels
        mean, std = (torch.tensor(part).double().reshape(1, 3, 1, 1) for part in (seen.mean, seen.std))
        return (values - mean) / std

    network = Kept()
    translated(network, given, wanted)(prepared(given).float())
    assert torch.allclose(network.seen.double(), prepared(wanted), atol=1e-5)
    assert translated(network, given, given) is network
    assert translated(network, None, wanted) is translated(network, given, None) is network
