from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from raydistill.datasets.items import halves, label_of, pixels, stacked
from raydistill.errors import DataError

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.mark.parametrize(
    "item", [("i", 3), ["i", 3], ("i", "extra", 3), {"image": "i", "label": 3}, {"img": "i", "targets": 3, "id": 0}]
)
def test_an_item_is_an_image_with_its_label(item: object) -> None:
    assert halves(item, "x") == ("i", 3)


@pytest.mark.parametrize("item", ["i", ("i",), {"image": "i"}, ("i", None), 3])
def test_an_item_without_a_label_is_refused(item: object) -> None:
    with pytest.raises(DataError, match=r"^here: must be an image with its label, \(image, label\), got "):
        halves(item, "here")


def test_every_form_of_an_image_is_the_same_array() -> None:
    for image in (Image.fromarray(RGB), torch.from_numpy(RGB).permute(2, 0, 1), RGB):
        assert (pixels(image, "x", "rgb") == RGB).all()
    halved = pixels(torch.from_numpy(RGB).permute(2, 0, 1).double() / 2, "x", "rgb")
    assert halved.dtype == np.float32
    assert (halved == RGB / 2).all()


def test_channels_are_repeated_for_rgb_and_mixed_as_pillow_does_for_grey() -> None:
    grey = Image.fromarray(RGB).convert("L")
    assert (pixels(grey, "x", "grey")[..., 0] == np.asarray(grey)).all()
    assert (pixels(RGB, "x", "grey")[..., 0] == np.asarray(grey)).all()
    for image in (grey, torch.from_numpy(np.array(grey)), torch.from_numpy(np.array(grey))[None]):
        assert (pixels(image, "x", "rgb") == np.asarray(grey)[..., None].repeat(3, 2)).all()
    mixed = pixels(RGB.astype(np.float32), "x", "grey")[..., 0]
    np.testing.assert_allclose(mixed, RGB @ [0.299, 0.587, 0.114], rtol=1e-6)


def test_an_image_is_resized_as_pillow_does() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    found = pixels(image, "x", "rgb", (6, 5))
    expected = np.asarray(Image.fromarray(image).resize((5, 6), Image.Resampling.BILINEAR)).astype(int)
    assert found.shape == (6, 5, 3)
    assert abs(found - expected).max() <= 1


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("a.png", "must be a PIL image, a tensor or an array, got 'str'"),
        (torch.zeros(2, 4, 4), "1 or 3 channels"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), r"got 'int64 \(3, 4, 4\)'"),
        (torch.zeros(3, 0, 4), "1 or 3 channels"),
        (np.zeros((1, 4, 4, 3), np.uint8), "1 or 3 channels"),
    ],
)
def test_what_is_no_image_is_refused(image: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        pixels(image, "here", "rgb")


def test_labels_are_numbers_or_vectors_of_0_and_1() -> None:
    for label in (3, np.int32(3), torch.tensor(3), np.array(3)):
        assert label_of(label, "x") == 3
    for vector in ([0, 1, 1], torch.tensor([0.0, 1.0, 1.0]), np.array([False, True, True])):
        assert np.asarray(label_of(vector, "x")).tolist() == [0, 1, 1]


@pytest.mark.parametrize("label", [-1, 0.5, torch.tensor(2.0), "cat", [0, 2], [], torch.zeros(1, 2), None])
def test_other_labels_are_refused(label: object) -> None:
    with pytest.raises(DataError, match=r"^here: must be a whole number from 0 up"):
        label_of(label, "here")


def test_labels_of_two_kinds_are_refused() -> None:
    assert stacked([1, 2], "x").dtype == np.int64
    assert stacked([np.array([0, 1], np.uint8)] * 3, "x").shape == (3, 2)
    with pytest.raises(DataError, match="all be numbers, or all vectors of one length"):
        stacked([1, np.array([0, 1], np.uint8)], "x")
