"""Decoding: any mode becomes RGB, resizing, damaged files, and many files through processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raydistill.datasets import decode
from raydistill.datasets.decode import decode_files, decode_image
from raydistill.errors import DataError


def test_grey_palette_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert (decode_image(str(tmp_path / "grey.png"), None, False) == grey[..., None]).all()
    clear = np.dstack([grey, grey + 1, grey + 2, np.full_like(grey, 9)])
    Image.fromarray(clear, "RGBA").save(tmp_path / "clear.png")
    assert (decode_image(str(tmp_path / "clear.png"), (3, 4), False) == clear[..., :3]).all()
    palette = Image.new("P", (4, 3), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "palette.png")
    assert (decode_image(str(tmp_path / "palette.png"), None, False) == [10, 20, 30]).all()


def test_another_size_is_resized_only_where_asked(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), (9, 8, 7)).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    assert (decode_image(path, (3, 5), True) == np.full((3, 5, 3), [9, 8, 7])).all()
    with pytest.raises(DataError, match=r"3x5 \(height x width\).*got '6x8'; set dataset.image_size"):
        decode_image(path, (3, 5), False)


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.jpg"
    if content is None:  # a true JPEG, cut off
        Image.effect_noise((64, 64), 50).convert("RGB").save(path)
        content = path.read_bytes()[:900]
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        decode_image(str(path), None, False)
    assert str(caught.value).startswith(f"{path}: cannot be decoded as an image")
    assert "\n" not in str(caught.value)


@pytest.fixture
def many(tmp_path: Path) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 4, 5, 3), dtype=np.uint8)
    paths = [str(tmp_path / f"{number:03}.png") for number in range(60)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return paths, pixels


@pytest.mark.parametrize("few", [1000, 25])
def test_files_come_in_order_with_and_without_processes(
    many: tuple[list[str], np.ndarray], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "FEW", few)
    monkeypatch.setattr(decode, "_cores", lambda: 2)
    paths, pixels = many
    assert (decode_files(paths, (4, 5), False) == pixels).all()


def test_a_process_hands_back_the_fault_of_its_file(
    many: tuple[list[str], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "FEW", 25)
    monkeypatch.setattr(decode, "_cores", lambda: 2)
    paths, _ = many
    Path(paths[47]).write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        decode_files(paths, (4, 5), False)
    assert str(caught.value).startswith(paths[47])
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="got '4x5'"):
        decode_files(paths, (4, 4), False)
