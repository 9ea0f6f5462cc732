"""Decoding: any mode becomes RGB, resizing, damaged files, and many files through processes."""

from __future__ import annotations

import ast
import os
import sys
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


def _saved(path: Path, pixels: np.ndarray, mode: str | None = None) -> str:
    Image.fromarray(pixels, mode).save(path)
    return str(path)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_of_grey_keep_their_range(tmp_path: Path, ending: str) -> None:
    grey = np.array([[0, 257, 128 * 257], [200 * 257, 254 * 257, 65535]], dtype=np.uint16)
    found = decode_image(_saved(tmp_path / f"deep.{ending}", grey), None, False)
    assert found.tolist() == [[[v] * 3 for v in row] for row in ([0, 1, 128], [200, 254, 255])]


def test_sixteen_bits_where_white_is_zero(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535]], dtype=np.uint16)).save(tmp_path / "i.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "i.tif") as image:
        assert image.tag_v2[262] == 0  # type: ignore[attr-defined]
    assert decode_image(str(tmp_path / "i.tif"), None, False)[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_without_a_range_are_refused_by_name(tmp_path: Path, kind: type) -> None:
    path = _saved(tmp_path / "wide.tif", np.arange(12).reshape(3, 4).astype(kind))
    with pytest.raises(DataError, match=r"wide\.tif: holds .* which do not say what is black and what is white; save"):
        decode_image(path, None, False)


@pytest.mark.parametrize(("colour", "ground"), [(0, 255), (255, 0), (90, 255)])
def test_what_is_drawn_in_transparency_alone_is_seen(tmp_path: Path, colour: int, ground: int) -> None:
    opacity = np.array([[0, 255], [255, 0]], dtype=np.uint8)
    flat = np.full_like(opacity, colour)
    rgba = decode_image(_saved(tmp_path / "a.png", np.dstack([flat, flat, flat, opacity]), "RGBA"), None, False)
    la = decode_image(_saved(tmp_path / "b.png", np.dstack([flat, opacity]), "LA"), None, False)
    assert rgba[..., 0].tolist() == la[..., 1].tolist() == [[ground, colour], [colour, ground]]


@pytest.mark.parametrize("name", ["script.jpg", "script.png", "script.tif"])
def test_only_decoders_of_image_formats_are_used(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript would be handed to Ghostscript, which runs it; FITS, FLI, icons and others have decoders too."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n"
    (tmp_path / name).write_bytes(script)
    with pytest.raises(DataError, match=r"cannot be decoded as an image \(it is none of BMP, .*WEBP\)"):
        decode_image(str(tmp_path / name), None, False)
    assert not (tmp_path / "started").exists()


@pytest.mark.slow
def test_nothing_else_of_the_package_opens_images_with_all_decoders(root: Path) -> None:
    for file in (root / "raydistill").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open"):
                assert "formats" in [keyword.arg for keyword in node.keywords], f"{file}:{node.lineno}"


@pytest.mark.slow
def test_what_a_library_prints_does_not_shift_pixels(
    many: tuple[list[str], np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that finds this module of Pillow's name prints much on both streams for each of its images."""
    (tmp_path / "noisy").mkdir()
    (tmp_path / "noisy" / "sitecustomize.py").write_text(
        "import os\nfrom PIL import Image\nopened = Image.open\n"
        "def noisy(*a, **k):\n    os.write(1, b'x' * 5000); os.write(2, b'y' * 5000)\n    return opened(*a, **k)\n"
        "Image.open = noisy\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "noisy"), *sys.path]))
    monkeypatch.setattr(decode, "FEW", 25)
    monkeypatch.setattr(decode, "_cores", lambda: 2)
    paths, pixels = many
    assert (decode_files(paths, (4, 5), False) == pixels).all()
    Path(paths[47]).write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot be decoded as an image"):
        decode_files(paths, (4, 5), False)


@pytest.mark.slow
def test_a_worker_takes_no_module_from_the_current_folder(
    many: tuple[list[str], np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(decode, "FEW", 25)
    monkeypatch.setattr(decode, "_cores", lambda: 2)
    paths, pixels = many
    assert (decode_files(paths, (4, 5), False) == pixels).all()


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


@pytest.mark.slow
@pytest.mark.parametrize("few", [1000, 25])
def test_files_come_in_order_with_and_without_processes(
    many: tuple[list[str], np.ndarray], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "FEW", few)
    monkeypatch.setattr(decode, "_cores", lambda: 2)
    paths, pixels = many
    assert (decode_files(paths, (4, 5), False) == pixels).all()


@pytest.mark.slow
@pytest.mark.parametrize("few", [1000, 25])
def test_the_middle_of_many_files(
    many: tuple[list[str], np.ndarray], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "FEW", few)
    monkeypatch.setattr(decode, "_cores", lambda: 2)
    paths, pixels = many
    assert (decode_files(paths, (4, 4), False, 4) == pixels[:, :, :4]).all(), (
        "half a pixel to the left, as round() has it"
    )
    assert (decode_files(paths, (2, 3), False, 4) == pixels[:, 1:3, 1:4]).all()


@pytest.mark.slow
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
