"""What is done to an image before a network sees it. It belongs to the weights: they mean nothing on other inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from raydistill.errors import CheckpointError, Fault

CHANNELS = ("rgb", "bgr", "grey")
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
LUMINANCE = (0.299, 0.587, 0.114)
"""Of red, green and blue in grey (ITU-R BT.601), as Pillow has it."""


@dataclass(frozen=True)
class Preprocessing:
    """mean, std: per channel, of pixels scaled to [0, 1]; one value each where channels is ``grey``.

    image_size: (height, width) that the network sees. resize: the shorter side is brought to so many pixels, then the
    middle is cropped; None: the image is stretched to image_size where it has another. interpolation: how it is
    resized, always antialiased. channels: ``rgb``, ``bgr`` or ``grey``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: tuple[int, int]
    resize: int | None = None
    interpolation: str = "bilinear"
    channels: str = "rgb"

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as the model sees one image."""
        return len(self.mean), *self.image_size

    def to_plain(self) -> dict[str, Any]:
        """As lists, numbers and words: what a checkpoint or a file of metadata holds."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, value: object, where: str) -> Preprocessing:
        """The inverse of `to_plain`; where: the file, for errors.

        Raises:
            CheckpointError: it is no such value.
        """
        if not isinstance(value, Mapping) or not _is_whole(value):
            raise CheckpointError(
                Fault(where, "is damaged: its preprocessing cannot be read", way_out="train it again")
            )
        height, width = value["image_size"]
        rest = {key: value[key] for key in ("resize", "interpolation", "channels") if key in value}
        return cls(tuple(map(float, value["mean"])), tuple(map(float, value["std"])), (height, width), **rest)

    def differs_from(self, own: Preprocessing) -> str:
        """What differs from a dataset's own, in a few words; "" where nothing does that could be seen."""
        said = []
        for what, mine, theirs in (
            ("mean", _numbers(self.mean), _numbers(own.mean)),
            ("std", _numbers(self.std), _numbers(own.std)),
            ("size", self._size(), own._size()),
            ("channels", self.channels, own.channels),
        ):
            if mine != theirs:
                said.append(f"{what} {mine} (the dataset's own: {theirs})")
        return ", ".join(said)

    def _size(self) -> str:
        size = "x".join(map(str, self.image_size))
        return size if self.resize is None else f"{size} from the middle of {self.resize}"


def imagenet_geometry(size: Sequence[int]) -> int:
    """The shorter side that images are resized to before a crop of `size`: 256 for 224, and in that proportion."""
    return round(min(size) * 256 / 224)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _is_whole(value: Mapping[str, Any]) -> bool:
    mean, std, size = (value.get(key) for key in ("mean", "std", "image_size"))
    resize = value.get("resize")
    channels = value.get("channels", "rgb")
    return (
        all(isinstance(part, (list, tuple)) for part in (mean, std, size))
        and all(_is_number(entry) for entry in (*mean, *std))  # type: ignore[misc]
        and all(entry > 0 for entry in std)  # type: ignore[union-attr]
        and channels in CHANNELS
        and len(mean) == len(std) == (1 if channels == "grey" else 3)  # type: ignore[arg-type]
        and len(size) == 2  # type: ignore[arg-type]
        and all(_is_count(side) for side in size)  # type: ignore[union-attr]
        and (resize is None or _is_count(resize))
        and value.get("interpolation", "bilinear") in INTERPOLATIONS
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 16
