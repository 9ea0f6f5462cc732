"""One item of a torch dataset, (image, label) in whatever form, as arrays.

An image is uint8 or float32 (H, W, C) of 1 or 3 channels; a label is a whole number, or a vector of 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from raydistill.datasets.arrays import grey
from raydistill.datasets.preprocessing import LUMINANCE
from raydistill.errors import ABSENT, DataError, Fault

IMAGE_KEYS = ("image", "images", "img", "pixel_values", "pixels")
LABEL_KEYS = ("label", "labels", "target", "targets", "fine_label")

Label = int | np.ndarray


def halves(item: object, where: str) -> tuple[object, object]:
    """(image, label) of a pair, a longer tuple (first and last), or a mapping with keys of usual names.

    Raises:
        DataError: it has no label, or is something else.
    """
    if isinstance(item, Mapping):
        image = next((item[key] for key in IMAGE_KEYS if key in item), None)
        label = next((item[key] for key in LABEL_KEYS if key in item), None)
        found: object = sorted(map(str, item))
    elif isinstance(item, (tuple, list)) and len(item) > 1:
        image, label, found = item[0], item[-1], type(item[-1]).__name__
    else:
        image, label, found = None, None, type(item).__name__
    if image is None or label is None:
        raise DataError(Fault(where, "must be an image with its label, (image, label)", found))
    return image, label


def pixels(image: object, where: str, channels: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """uint8 or float32 (H, W, C) of a PIL image, a tensor (C, H, W) or (H, W), or an array (H, W, C) or (H, W).

    channels: ``rgb`` repeats one channel, ``grey`` makes one of three. size: (height, width) to resize to, bilinear
    and antialiased.

    Raises:
        DataError: it is no image.
    """
    if isinstance(image, Image.Image):
        values: np.ndarray = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
    elif isinstance(image, Tensor):
        values = (image.permute(1, 2, 0) if image.dim() == 3 else image).detach().cpu().numpy()
    elif isinstance(image, np.ndarray):
        values = image
    else:
        raise DataError(Fault(where, "must be a PIL image, a tensor or an array", type(image).__name__))
    shape = tuple(image.shape) if isinstance(image, Tensor) else values.shape
    if values.ndim == 2:
        values = values[:, :, None]
    numbers = values.dtype == np.uint8 or np.issubdtype(values.dtype, np.floating)
    if values.ndim != 3 or values.shape[2] not in (1, 3) or 0 in values.shape or not numbers:
        rule = "must be uint8 or float of 1 or 3 channels: a tensor (C, H, W) or an array (H, W, C)"
        raise DataError(Fault(where, rule, f"{values.dtype} {shape}"))
    if values.dtype != np.uint8:
        values = values.astype(np.float32, copy=False)
    if channels == "grey" and values.shape[2] == 3:
        if values.dtype == np.uint8:
            values = grey(values)
        else:
            values = (values * np.array(LUMINANCE, dtype=np.float32)).sum(2, keepdims=True)
    elif channels == "rgb" and values.shape[2] == 1:
        values = np.repeat(values, 3, axis=2)
    if size is not None and values.shape[:2] != size:
        # imported here: torchvision takes seconds that a trial on arrays does not have to spend
        from torchvision.transforms.v2 import functional

        tensor = torch.from_numpy(np.array(values)).permute(2, 0, 1)
        values = functional.resize(tensor, list(size), antialias=True).permute(1, 2, 0).numpy()
    return values


def label_of(value: object, where: str) -> Label:
    """A whole number from 0 up, or uint8 (L,) of 0 and 1.

    Raises:
        DataError: it is neither.
    """
    array: np.ndarray = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.ndim == 0 and np.issubdtype(array.dtype, np.integer) and array >= 0:
        return int(array)
    if array.ndim == 1 and len(array) and array.dtype.kind in "biuf" and np.isin(array, (0, 1)).all():
        return array.astype(np.uint8)
    shown: object = value if isinstance(value, (int, float, str, bytes, type(None))) else f"{array.dtype} {array.shape}"
    if isinstance(value, Tensor) and value.dim() == 0:
        shown = value.item()
    raise DataError(Fault(where, "must be a whole number from 0 up, or for several labels a vector of 0 and 1", shown))


def stacked(labels: Sequence[Label], where: str) -> np.ndarray:
    """int64 (N,) of numbers, or uint8 (N, L) of vectors.

    Raises:
        DataError: they are of both kinds, or of several lengths.
    """
    lengths = {-1 if isinstance(label, int) else len(label) for label in labels}
    if len(lengths) != 1:
        rule = "its labels must all be numbers, or all vectors of one length"
        raise DataError(Fault(where, rule, sorted("a number" if n < 0 else f"{n} values" for n in lengths) or ABSENT))
    if lengths == {-1}:
        return np.asarray(labels, dtype=np.int64)
    return np.stack([np.asarray(label) for label in labels])
