"""A batch of any nesting, as a DataLoader of one's own gives it, as one tensor of images and one of labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from raydistill.datasets.items import IMAGE_KEYS, LABEL_KEYS
from raydistill.errors import DataError, Fault

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def images_and_labels(batch: object, where: str) -> tuple[Tensor, Tensor]:
    """(images uint8 or float32 (B, C, H, W), labels int64 (B,) or uint8 (B, L)), wherever in `batch` they are.

    A tensor under a key of a usual name is what that says (see `items`); else the images are the one tensor of four
    dimensions, the labels the last one of whole numbers and of one dimension, or of 0 and 1 and of two.

    Raises:
        DataError: there are none, or several that could be the images.
    """
    leaves = list(_leaves(batch, ""))
    images = [(key, value) for key, value in leaves if value.dim() == 4]
    named = [(key, value) for key, value in images if key in IMAGE_KEYS] or images
    if len(named) != 1:
        raise DataError(Fault(where, "must hold one tensor of images, (B, C, H, W)", _shapes(leaves)))
    found = named[0][1]
    if found.dtype != torch.uint8 and not found.is_floating_point():
        raise DataError(Fault(where, "must hold images of type uint8 or float", str(found.dtype)))
    rows = len(found)
    labels = [
        (key, value)
        for key, value in leaves
        if value.dim() in (1, 2) and len(value) == rows and (value.dim() == 2 or value.dtype in _WHOLE)
    ]
    asked = [value for key, value in labels if key in LABEL_KEYS] or [value for _, value in labels]
    if not rows or not asked:
        rule = f"must hold a label for each image: whole numbers ({rows},), or 0 and 1 ({rows}, labels)"
        raise DataError(Fault(where, rule, _shapes(leaves)))
    return found if found.dtype == torch.uint8 else found.float(), _checked(asked[-1], where)


def _checked(labels: Tensor, where: str) -> Tensor:
    if labels.dim() == 1:
        if labels.min() < 0:
            raise DataError(Fault(where, "must hold labels from 0 up", int(labels.min())))
        return labels.long()
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise DataError(Fault(where, "must hold labels of 0 and 1 where an image has several", str(labels.dtype)))
    return labels.to(torch.uint8)


def _leaves(batch: object, key: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(batch, Tensor):
        yield key, batch
    elif isinstance(batch, Mapping):
        for name, part in batch.items():
            yield from _leaves(part, str(name))
    elif isinstance(batch, (list, tuple)):
        for part in batch:
            yield from _leaves(part, key)


def _shapes(leaves: list[tuple[str, Tensor]]) -> str:
    return ", ".join(f"{value.dtype} {tuple(value.shape)}" for _, value in leaves) or "no tensor"
