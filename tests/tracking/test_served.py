"""What a served classifier makes of a request, without a server."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from raydistill.tracking.served import ABOUT, FOLDER, BadImages, ServedImages

SEEN = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "image_size": [4, 5]}
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)


class Means:
    """Gives the mean of each prepared channel."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.float32
        return images.mean(axis=(2, 3))


def expected(pixels: np.ndarray) -> np.ndarray:
    return ((pixels / 255 - SEEN["mean"]) / SEEN["std"]).mean(axis=(0, 1))


def file_of(pixels: np.ndarray, form: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form)
    return content.getvalue()


def text_of(pixels: np.ndarray) -> str:
    return base64.b64encode(file_of(pixels)).decode()


def ask(*images: Any, about: dict[str, Any] | None = None, **params: Any) -> Any:
    served = ServedImages(Means(), {"preprocessing": SEEN, **(about or {})})
    return served.predict(pd.DataFrame({"image": pd.Series(list(images), dtype=object)}), params)


WAYS = {
    "an array": lambda pixels: pixels,
    "lists": lambda pixels: pixels.tolist(),
    "content": file_of,
    "base64": text_of,
    "base64 in lines": lambda pixels: base64.encodebytes(file_of(pixels)).decode(),
    "a data URI": lambda pixels: f"data:image/png;base64,{text_of(pixels)}",
}


@pytest.mark.parametrize("way", WAYS)
def test_images_are_prepared_and_asked_about(way: str) -> None:
    other = 255 - PIXELS
    found = ask(WAYS[way](PIXELS), WAYS[way](other))
    np.testing.assert_allclose(found, [expected(PIXELS), expected(other)], atol=1e-5)


def test_a_row_of_several_texts_is_several_images() -> None:
    """MLflow's server makes it of a list of texts."""
    found = ask([text_of(PIXELS), text_of(255 - PIXELS)])
    np.testing.assert_allclose(found, [expected(PIXELS), expected(255 - PIXELS)], atol=1e-5)


def test_an_image_of_another_size_is_resized() -> None:
    large = np.repeat(np.repeat(PIXELS, 4, 0), 4, 1)
    np.testing.assert_allclose(ask(large)[0], expected(PIXELS), atol=0.1)


def test_the_likeliest_classes_by_name() -> None:
    shares = np.exp(expected(PIXELS)) / np.exp(expected(PIXELS)).sum()
    order = np.argsort(-shares)
    (found,) = ask(PIXELS, about={"classes": ["a", "b", "c"]}, top=2)
    assert [one["class"] for one in found] == [["a", "b", "c"][i] for i in order[:2]]
    assert [one["share"] for one in found] == pytest.approx(shares[order[:2]], abs=1e-5)
    (several,) = ask(PIXELS, about={"classes": ["a", "b", "c"], "multi_label": True}, top=9)
    assert [one["share"] for one in several] == pytest.approx(sorted(1 / (1 + np.exp(-expected(PIXELS))))[::-1])
    assert [one["class"] for one in ask(PIXELS, top=1)[0]] == [order[0]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "images" / "of cats").mkdir(parents=True)
    (tmp_path / "images" / "of cats" / "a.png").write_bytes(file_of(PIXELS))
    (tmp_path / "outside.png").write_bytes(file_of(PIXELS))
    monkeypatch.setenv(FOLDER, str(tmp_path / "images"))
    return tmp_path


def test_a_file_is_read_in_the_folder_that_is_named(folder: Path) -> None:
    for path in ("of cats/a.png", str(folder / "images" / "of cats" / "a.png"), "of cats/../of cats/a.png"):
        np.testing.assert_allclose(ask(path)[0], expected(PIXELS), atol=1e-5)


def refusal(*images: Any) -> str:
    with pytest.raises(BadImages) as caught:
        ask(*images)
    line = caught.value.message
    assert "\n" not in line
    assert len(line) < 250
    assert caught.value.get_http_status_code() == 400
    return line


def test_no_other_file_is_read(folder: Path) -> None:
    """Nor is it told which there are."""
    (folder / "images" / "link.png").symlink_to(folder / "outside.png")
    os.mkfifo(folder / "images" / "pipe.png")
    (folder / "images" / "loop.png").symlink_to(folder / "images" / "loop.png")
    for path in ("../outside.png", str(folder / "outside.png"), "link.png", "pipe.png", "loop.png", "of cats", "no.png",
                 "/etc/passwd.", "a\0.png", "x." * 4000, "/dev/zero."):  # fmt: skip
        shown = path if len(path) <= 60 else path[:57] + "..."
        rule = f"is neither base64 nor a file in the folder that {FOLDER} names"
        assert refusal(PIXELS, path) == f"image 1: {shown!r} {rule}"


def test_without_a_folder_no_file_is_read_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER)
    path = str(folder / "outside.png")
    line = refusal(path)
    assert line.endswith(f"is not base64, and files are read only in the folder that {FOLDER} names")


PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("image", "line"),
    [
        (base64.b64encode(PROGRAM).decode(), "image 0: is none of BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"),
        ("", "image 0: is none of "),
        (base64.b64encode(file_of(PIXELS)[:60]).decode(), "image 0: cannot be decoded ("),
        (file_of(np.zeros((2, 2), dtype=np.float32), "TIFF"), "image 0: holds floating-point numbers, which"),
        ([[1, 2], [3]], "image 0: must be base64 of an image file, or pixels (height, width, 3) from 0 to 255"),
        ([[[0, 0, 256]]], "image 0: must be"),
        ([[[0, 0, -1]]], "image 0: must be"),
        ([[[0.5, 0, 0]]], "image 0: must be"),
        ([[[0, 0]]], "image 0: must be"),
        ([[[True, True, True]]], "image 0: must be"),
        ([[]], "image 0: must be"),
        (7, "image 0: must be"),
        (None, "image 0: must be"),
        ({"image": 1}, "image 0: must be"),
        (["a.png", 3], "image 0: must be"),
        ([], "there is no image in the request"),
    ],
)
def test_what_is_no_image_is_one_line(image: Any, line: str) -> None:
    assert refusal(image).startswith(line)


def test_a_picture_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "decompression bomb" in refusal(file_of(np.zeros((20, 20, 3), dtype=np.uint8)))


def test_a_request_without_the_column_is_told_the_form() -> None:
    with pytest.raises(BadImages, match=r'as {"inputs": \[IMAGE, \.\.\.\]} or in a column "image"'):
        ServedImages(Means(), {"preprocessing": SEEN}).predict(pd.DataFrame({"picture": [1]}))


def test_a_line_stays_a_line_whatever_a_server_puts_before_it() -> None:
    error = BadImages("image 0: is no image")
    error.message = "Failed to predict data 'a thousand numbers'. \nError: image 0: is no image"
    assert '"message": "image 0: is no image"' in error.serialize_as_json()


def test_the_name_of_its_file() -> None:
    assert ABOUT == "images.json"
