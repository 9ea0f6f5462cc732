"""What MLflow serves of an image classifier: raw images in, logits or the names of classes out.

The source of this module lies in the model's own folder, behind that of `raydistill.image_file`: whoever loads it needs
MLflow, torch, NumPy and Pillow, neither raydistill nor a user's code. Nothing in a request is executed; a file that it
names is opened by Pillow's decoders of images alone, and only where `FOLDER` says that files may be read.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from PIL import UnidentifiedImageError

from raydistill.image_file import FORMATS, Unclear, in_rgb, opened, picture, prepared

if TYPE_CHECKING:
    from PIL.Image import Image

ABOUT = "images.json"
"""Beside the network: its preprocessing and its classes."""

COLUMN = "image"
"""The input's name."""

FOLDER = "RAYDISTILL_IMAGES"
"""Of the environment: a folder whose files a request may name. Without it only a file's content can be sent."""


class BadImages(MlflowException):
    """A request that cannot be answered, in one line."""

    def __init__(self, line: str) -> None:
        super().__init__(line, BAD_REQUEST)

    def __setattr__(self, name: str, value: object) -> None:
        # MLflow's server puts all that was sent in front of a message: of an image, thousands of numbers
        if name != "message" or "message" not in self.__dict__:
            super().__setattr__(name, value)


class ServedImages:
    """network: MLflow's, of what is prepared. about: ``preprocessing``, ``classes``, ``multi_label``."""

    def __init__(self, network: Any, about: Mapping[str, Any]) -> None:
        self._network, self._about = network, about

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """data: a DataFrame with the column `COLUMN`. Of each image its pixels, (H, W, 3) or (H, W) of 0 to 255; an
        image file's content, in base64 where it is text; or a path in `FOLDER`.

        Logits, (N, classes) float32; with the parameter ``top``, of each image so many classes, the likeliest first.
        """
        if COLUMN not in data:
            raise BadImages(f'images are wanted as {{"inputs": [IMAGE, ...]}} or in a column "{COLUMN}"')
        images = [_read(value, f"image {i}") for i, value in enumerate(_each(data[COLUMN]))]
        if not images:
            raise BadImages("there is no image in the request")
        wanted = self._about["preprocessing"]
        logits: np.ndarray = self._network.predict(np.stack([prepared(image, wanted) for image in images]))
        top = (params or {}).get("top", 0)
        return [self._named(row, top) for row in logits] if top > 0 else logits

    def _named(self, logits: np.ndarray, top: int) -> list[dict[str, object]]:
        if self._about.get("multi_label"):
            shares = 1 / (1 + np.exp(-logits))
        else:
            shares = np.exp(logits - logits.max())
            shares /= shares.sum()
        names = self._about.get("classes") or list(range(len(shares)))
        return [{"class": names[i], "share": float(shares[i])} for i in np.argsort(-shares)[:top]]


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> ServedImages:
    """What MLflow calls. path: of the network and `ABOUT`."""
    from mlflow import pytorch

    about = json.loads((Path(path) / ABOUT).read_text(encoding="utf-8"))
    return ServedImages(pytorch._load_pyfunc(path, model_config), about)


def _each(column: Any) -> Iterator[Any]:
    """The server makes one row of a list of texts."""
    for value in column:
        if isinstance(value, list) and all(isinstance(text, str) for text in value):
            yield from value
        else:
            yield value


def _read(value: Any, where: str) -> Image:
    """In RGB."""
    if isinstance(value, str):
        return _decoded(_named_by(value, where), where)
    if isinstance(value, bytes):
        return _decoded(io.BytesIO(value), where)
    pixels = _array(value)
    if pixels is None:
        raise BadImages(f"{where}: must be base64 of an image file, or pixels (height, width, 3) from 0 to 255")
    return in_rgb(picture(pixels))


def _array(value: Any) -> np.ndarray | None:
    """uint8 (H, W) or (H, W, 1, 3 or 4); None where it is no such thing."""
    try:
        pixels = np.asarray(value)
    except ValueError:  # rows of different lengths
        return None
    if pixels.dtype.kind not in "iu" or pixels.ndim not in (2, 3) or 0 in pixels.shape:
        return None
    if pixels.min() < 0 or pixels.max() > 255:
        return None
    return pixels.astype(np.uint8) if pixels.shape[2:] in ((), (1,), (3,), (4,)) else None


def _named_by(text: str, where: str) -> str | IO[bytes]:
    """What base64 or a path stands for."""
    said = text.partition("base64,")[2] if text.startswith("data:image/") else text
    try:
        return io.BytesIO(base64.b64decode("".join(said.split()), validate=True))
    except (binascii.Error, ValueError):
        pass
    shown = text if len(text) <= 60 else text[:57] + "..."
    folder = os.environ.get(FOLDER)
    if not folder:
        raise BadImages(f"{where}: {shown!r} is not base64, and files are read only in the folder that {FOLDER} names")
    allowed = Path(folder).resolve()
    try:
        path = (allowed / text).resolve()
        if path.is_relative_to(allowed) and path.is_file():  # no device and no pipe: reading those may never end
            return str(path)
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, a loop of links
        pass
    raise BadImages(f"{where}: {shown!r} is neither base64 nor a file in the folder that {FOLDER} names")


def _decoded(source: str | IO[bytes], where: str) -> Image:
    try:
        with opened(source) as image:
            return in_rgb(image)
    except UnidentifiedImageError:
        raise BadImages(f"{where}: is none of {', '.join(FORMATS)}") from None
    except Unclear as error:
        raise BadImages(f"{where}: {error}") from None
    except Exception as error:  # a damaged file can raise nearly anything from a decoder
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImages(f"{where}: cannot be decoded ({reason})") from None
