"""What is done to an image: there and back as plain values, and what of it is damage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from raydistill.datasets.preprocessing import Preprocessing, imagenet_geometry
from raydistill.errors import CheckpointError

RGB = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (20, 30), 36, "bicubic", "bgr")
GREY = Preprocessing((0.5,), (0.25,), (28, 28), None, "nearest", "grey")


@pytest.mark.parametrize("value", [RGB, GREY])
def test_plain_values_and_back(value: Preprocessing) -> None:
    plain = value.to_plain()
    assert all(isinstance(part, (list, int, str, type(None))) for part in plain.values())
    assert Preprocessing.from_plain(plain, "c.pt") == value
    older = {key: plain[key] for key in ("mean", "std", "image_size")}  # before there was more to say
    if value is RGB:
        expected = Preprocessing(value.mean, value.std, value.image_size)
        assert Preprocessing.from_plain(older, "c.pt") == expected


def test_what_a_network_sees() -> None:
    assert RGB.image_shape == (3, 20, 30)
    assert GREY.image_shape == (1, 28, 28)


@pytest.mark.parametrize(
    "changed",
    [
        {"mean": None},
        {"mean": [0.1, 0.2]},
        {"mean": [0.1, 0.2, True]},
        {"mean": [0.1, 0.2, float("nan")]},
        {"mean": "abc"},
        {"std": [0.4, 0.5, 0.0]},
        {"std": [0.4, 0.5, -1]},
        {"std": [0.4, 0.5, float("inf")]},
        {"image_size": [20]},
        {"image_size": [20, 0]},
        {"image_size": [20, 1 << 16]},
        {"image_size": [20, 3.0]},
        {"resize": 0},
        {"resize": "36"},
        {"interpolation": "cubic"},
        {"channels": "rgba"},
        {"channels": "grey"},  # of three numbers
    ],
)
def test_anything_else_is_damage(changed: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"^c.pt: is damaged: its preprocessing cannot be read; train it again$"):
        Preprocessing.from_plain({**RGB.to_plain(), **changed}, "c.pt")


def test_no_mapping_is_damage_too() -> None:
    for value in (None, [], "rgb", 3):
        with pytest.raises(CheckpointError, match="its preprocessing cannot be read"):
            Preprocessing.from_plain(value, "c.pt")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"mean": (0.1, 0.2, 0.3000001)}, ""),  # nothing that could be seen
        ({"interpolation": "nearest"}, ""),
        ({"std": (0.4, 0.5, 0.7)}, "std 0.400 0.500 0.600 (the dataset's own: 0.400 0.500 0.700)"),
        ({"resize": None}, "size 20x30 from the middle of 36 (the dataset's own: 20x30)"),
        (
            {"mean": (0.1, 0.2, 0.4), "channels": "rgb"},
            "mean 0.100 0.200 0.300 (the dataset's own: 0.100 0.200 0.400), channels bgr (the dataset's own: rgb)",
        ),
    ],
)
def test_what_differs_is_said_in_a_few_words(changed: dict[str, Any], said: str) -> None:
    assert RGB.differs_from(replace(RGB, **changed)) == said


@pytest.mark.parametrize(("size", "side"), [((224, 224), 256), ((224, 300), 256), ((112, 112), 128), ((299, 299), 342)])
def test_the_middle_is_cut_in_imagenets_proportion(size: tuple[int, int], side: int) -> None:
    assert imagenet_geometry(size) == side
    assert abs(side / min(size) - 256 / 224) < 0.01
