"""An image file to what a network sees; tests/datasets/test_decode.py reads many of them through it."""

from __future__ import annotations

import ast
import inspect
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from raydistill import image_file
from raydistill.datasets.decode import decode_image, decode_middle
from raydistill.image_file import Unclear, in_rgb, opened, picture, prepared


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((140, 90)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.mark.parametrize("resize", [None, 40])
@pytest.mark.parametrize("channels", ["rgb", "bgr", "grey"])
def test_an_image_is_prepared_as_in_training(image: Path, resize: int | None, channels: str) -> None:
    count = 1 if channels == "grey" else 3
    seen = {
        "mean": [0.4, 0.5, 0.6][:count], "std": [0.2, 0.25, 0.3][:count], "image_size": [28, 36], "resize": resize,
        "interpolation": "bilinear", "channels": channels,
    }  # fmt: skip
    with opened(str(image)) as file:
        found = prepared(in_rgb(file), seen)
    if resize is None:
        pixels = decode_image(str(image), (28, 36), resize=True)
    else:
        pixels = decode_middle(str(image), (28, 36), resize, "bilinear")
    if channels == "grey":
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    if channels == "bgr":
        pixels = pixels[..., ::-1]
    expected = (pixels / 255 - np.array(seen["mean"])) / np.array(seen["std"])
    assert (found.shape, found.dtype) == ((count, 28, 36), np.float32)
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), atol=1e-5)


def test_pixels_are_a_picture() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.asarray(in_rgb(picture(grey))).tolist() == np.repeat(grey[..., None], 3, 2).tolist()
    assert picture(grey[..., None]).size == (4, 3)
    assert np.asarray(picture(np.dstack([grey] * 3)[..., ::-1])).shape == (3, 4, 3)


def test_numbers_without_a_range_are_unclear() -> None:
    with pytest.raises(Unclear, match="floating-point numbers, which do not say"):
        in_rgb(Image.fromarray(np.zeros((2, 2), dtype=np.float32)))


def test_only_decoders_of_images_see_a_file() -> None:
    """EPS is a program that Pillow gives to another program."""
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    assert Image.open(io.BytesIO(program)).format == "EPS"
    with pytest.raises(UnidentifiedImageError):
        opened(io.BytesIO(program))


def test_it_stands_on_numpy_and_pillow_alone() -> None:
    """Its source goes where raydistill is not."""
    tree = ast.parse(inspect.getsource(image_file))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert names == {"__future__", "collections.abc", "typing", "numpy", "PIL"}
