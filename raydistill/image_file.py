"""An image file to what a network sees.

NumPy and Pillow alone: the source of this module also stands beside networks that are taken away, which are to prepare
images as they were prepared in training.

Pillow is told which decoders it may use: it goes by a file's content, and one of its decoders starts another program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's decoders that read pixels and nothing else."""

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


class Unclear(ValueError):
    """What an image holds cannot be told."""


def opened(source: str | IO[bytes]) -> Image.Image:
    """A file, or its content, that is decoded when its pixels are asked for. Raises whatever Pillow does."""
    return Image.open(source, formats=FORMATS)


def picture(pixels: np.ndarray) -> Image.Image:
    """Of uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels))


def prepared(rgb: Image.Image, wanted: Mapping[str, Any]) -> np.ndarray:
    """An image in RGB as a network wants it: (C, H, W) float32. wanted: see `datasets.preprocessing.Preprocessing`."""
    height, width = wanted["image_size"]
    interpolation = wanted.get("interpolation", "bilinear")
    if wanted.get("resize") is not None:
        rgb = middle(rgb, (height, width), wanted["resize"], interpolation)
    elif rgb.size != (width, height):
        rgb = rgb.resize((width, height), RESAMPLING[interpolation])
    channels = wanted.get("channels", "rgb")
    pixels = np.asarray(rgb.convert("L") if channels == "grey" else rgb, dtype=np.float32) / 255
    pixels = pixels.reshape(height, width, -1)
    if channels == "bgr":
        pixels = pixels[..., ::-1]
    pixels = (pixels - np.array(wanted["mean"], dtype=np.float32)) / np.array(wanted["std"], dtype=np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)


def middle(rgb: Image.Image, size: Sequence[int], shorter: int, interpolation: str) -> Image.Image:
    """The shorter side resized to `shorter`, then the middle of `size`, (height, width); what a smaller image lacks is
    black."""
    longer = int(shorter * max(rgb.size) / min(rgb.size))
    width, height = (shorter, longer) if rgb.width <= rgb.height else (longer, shorter)
    if shorter != min(rgb.size):
        rgb = rgb.resize((width, height), RESAMPLING[interpolation])
    left, top = round((width - size[1]) / 2), round((height - size[0]) / 2)
    return rgb.crop((left, top, left + size[1], top + size[0]))


def in_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, 16 bits as 8; Pillow's own conversion cuts off what is above 255.

    Raises:
        Unclear: its numbers do not say what is black and what is white.
    """
    deep = _white_level(image)
    if deep is not None:
        grey = np.rint(np.asarray(image).astype(np.float64) * (255 / deep)).astype(np.uint8)
        tags = getattr(image, "tag_v2", {})
        inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return Image.fromarray(255 - grey if inverted else grey).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "whole numbers of 32 bits" if image.mode == "I" else "floating-point numbers"
        raise Unclear(f"holds {kind}, which do not say what is black and what is white")
    return _drawn_in_alpha(image) if image.has_transparency_data else image.convert("RGB")


def _white_level(image: Image.Image) -> int | None:
    """What white is in a grey image of more than 8 bits; None for others."""
    if image.mode.startswith("I;"):
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
        return (1 << int(bits[0])) - 1
    return 65535 if image.mode == "I" and image.format in ("PNG", "PPM") else None  # Pillow widens these two to 32 bits


def _drawn_in_alpha(image: Image.Image) -> Image.Image:
    """The colours of a transparent image; one that has a single colour is drawn by its transparency alone, and gets a
    background: white, or black where the colour is light.
    """
    clear = image.convert("RGBA")
    colours = clear.convert("RGB")
    low_high = colours.getextrema()
    opacity = clear.getchannel("A").getextrema()
    if opacity[0] == opacity[1] or any(low != high for low, high in low_high):  # type: ignore[misc]
        return colours
    light = sum(low for low, _ in low_high) > 3 * 127  # type: ignore[misc]
    ground = Image.new("RGBA", clear.size, (0, 0, 0, 255) if light else (255, 255, 255, 255))
    return Image.alpha_composite(ground, clear).convert("RGB")
