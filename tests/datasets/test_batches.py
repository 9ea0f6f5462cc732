from __future__ import annotations

import pytest
import torch

from raydistill.datasets.batches import images_and_labels
from raydistill.errors import DataError

IMAGES = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).to(torch.uint8)
LABELS = torch.tensor([1, 0])


@pytest.mark.parametrize(
    "batch",
    [
        (IMAGES, LABELS),
        [LABELS, IMAGES],
        {"pixel_values": IMAGES, "mask": torch.zeros(2, 1, 4, 4), "labels": LABELS},
        {"x": [(IMAGES, ["a", "b"])], "y": {"target": LABELS}, "index": torch.tensor([7, 8])},
        (torch.tensor([7, 8]), (IMAGES, {"weight": torch.rand(2)}), LABELS.int()),
        (IMAGES, LABELS, torch.tensor(3), torch.zeros(5, dtype=torch.int64)),
    ],
)
def test_images_and_labels_are_found_wherever_they_are(batch: object) -> None:
    images, labels = images_and_labels(batch, "x")
    assert torch.equal(images, IMAGES)
    assert torch.equal(labels, LABELS)
    assert labels.dtype == torch.int64


def test_several_labels_an_image() -> None:
    images, labels = images_and_labels((IMAGES.double(), torch.tensor([[0.0, 1.0], [1.0, 1.0]])), "x")
    assert (images.dtype, labels.dtype) == (torch.float32, torch.uint8)
    assert labels.tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ("text", "one tensor of images.*got 'no tensor'"),
        ((IMAGES, IMAGES, LABELS), "one tensor of images"),
        ((IMAGES, LABELS.float()), r"a label for each image: whole numbers \(2,\)"),
        ((IMAGES, torch.tensor([1, 2, 3])), "a label for each image"),
        ((IMAGES, torch.tensor([1, -2])), "labels from 0 up, got -2"),
        ((IMAGES, torch.tensor([[0.0, 0.5]] * 2)), "labels of 0 and 1"),
        ((IMAGES.long(), LABELS), "type uint8 or float, got 'torch.int64'"),
        ((IMAGES[:0], LABELS[:0]), "a label for each image"),
    ],
)
def test_what_is_no_batch_of_images_is_one_line(batch: object, words: str) -> None:
    with pytest.raises(DataError, match=rf"^here: must hold .*{words}") as caught:
        images_and_labels(batch, "here")
    assert "\n" not in str(caught.value)
