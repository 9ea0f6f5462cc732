"""What a served detector makes of a request, and of what it finds."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raydistill.tracking.served import BadImages
from raydistill.tracking.served_boxes import Found, ServedBoxes

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
ABOUT = {"classes": ["background", "bar", "square"]}


def brightest(image: np.ndarray) -> Found:
    """A box around the whole of an image, as sure as it is bright, and a smaller one that is surer."""
    assert image.dtype == np.float32
    _, height, width = image.shape
    boxes = np.array([[0, 0, width, height], [1, 1, 2, 2]], dtype=np.float32)
    return boxes, np.array([2, 1]), np.array([image.mean(), 1.0], dtype=np.float32)


def ask(*images: Any, about: dict[str, Any] = ABOUT, **params: Any) -> Any:
    data = pd.DataFrame({"image": pd.Series(list(images), dtype=object)})
    return ServedBoxes(brightest, about).predict(data, params)


def text_of(pixels: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


@pytest.mark.parametrize("sent", [PIXELS, PIXELS.tolist(), text_of(PIXELS)], ids=["array", "lists", "base64"])
def test_the_surest_come_first_by_the_names_of_their_classes(sent: Any) -> None:
    small, whole = ask(sent)[0]
    assert small == {"box": [1, 1, 2, 2], "class": "bar", "score": 1.0}
    assert (whole["box"], whole["class"]) == ([0, 0, 8, 6], "square")
    assert whole["score"] == pytest.approx(PIXELS.mean() / 255, abs=1e-6)


def test_images_may_be_of_any_sizes_and_unsure_boxes_are_left_out() -> None:
    found = ask(PIXELS, PIXELS[:3, :5], score=0.99)
    assert [len(boxes) for boxes in found] == [1, 1]
    assert ask(PIXELS[:3, :5])[0][1]["box"] == [0, 0, 5, 3]
    assert ask(PIXELS, about={})[0][0]["class"] == 1


def test_what_is_no_image_is_one_line() -> None:
    with pytest.raises(BadImages, match=r"image 0: 'cat' is not base64"):
        ask("cat")
    with pytest.raises(BadImages, match="images are wanted as"):
        ServedBoxes(brightest, ABOUT).predict(pd.DataFrame({"x": [1]}))
    with pytest.raises(BadImages, match="there is no image in the request"):
        ask()
