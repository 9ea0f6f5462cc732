"""What a detector finds in one image: boxes (n, 4) in pixels, labels (n,), scores (n,), and masks (n, 1, H, W) where it
has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from raydistill.export.outputs.base import Output, Runner, Wrapped, parts

MOST_ALONE = 0.05
"""The share of detections that only one of two detectors may have: where the scores of two boxes differ in the last
bit, which of them is kept is chance."""

_NAMES = ("boxes", "labels", "scores")
_MASKS = "masks"
_SAME_BOX, _SAME_MASK = 0.99, 0.9
"""Intersection over union. A mask's edge moves by a pixel where a side of its box is rounded the other way."""
_SAME_PIXELS, _SAME_SCORE = 1e-2, 1e-3


class Detections:
    NAME: ClassVar[str] = "detections"
    BATCHED: ClassVar[bool] = False

    def fits(self, output: object) -> bool:
        return isinstance(output, (list, tuple)) and bool(output) and all(map(_is_found, output))

    def delivered(self, network: nn.Module) -> nn.Module:
        return OneImage(network).eval()

    def input_names(self, count: int, of_images: bool) -> tuple[str, ...]:
        return ("image",)

    def input_shape(self, value: Tensor, batch: int | None) -> tuple[int | None, ...]:
        return (value.shape[0], None, None)

    def output_names(self, output: Output, has_classes: bool) -> tuple[str, ...]:
        return (*_NAMES, _MASKS)[: len(parts(output))]

    def called(self, network: str, given: str, outputs: Sequence[str]) -> str:
        return f"{', '.join(outputs)} = map({network}([{given}])[0].get, {tuple(outputs)})"

    def output_shapes(self, output: Output, rows: int) -> tuple[tuple[int | None, ...], ...]:
        sizes: tuple[tuple[int | None, ...], ...] = ((None, 4), (None,), (None,), (None, 1, None, None))
        return sizes[: len(parts(output))]

    def difference(self, found: Output, wanted: Output) -> float:
        """The share of the detections of both that only one has."""
        one, other = parts(found), parts(wanted)
        count = len(one[0]) + len(other[0])
        if not count:
            return 0.0
        same = _same(one, other)
        return 1 - float(same.any(1).sum() + same.any(0).sum()) / count

    def may_differ(self, rounded: bool, largest: float) -> float:
        return MOST_ALONE

    def said(self, difference: float) -> str:
        return f"{difference:.1%} of the detections are not the masked network's"

    def running(self, run: Runner) -> nn.Module:
        return _Running(run)


class OneImage(Wrapped):
    """A detector that is called with one image, (3, H, W) float32 in [0, 1]."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self.network([image])[0]
        return tuple(found[name] for name in (*_NAMES, _MASKS) if name in found)


class _Running(nn.Module):
    def __init__(self, run: Runner) -> None:
        super().__init__()
        self.run = run

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        return [dict(zip((*_NAMES, _MASKS), parts(self.run([image.cpu()])), strict=False)) for image in images]


def scenes(height: int, width: int) -> Iterator[Tensor]:
    """Images, (3, height, width), ever the same: grey with bright and dark blocks, fewer and fewer, and less noise."""
    generator = torch.Generator().manual_seed(0)
    for count in (12, 8, 6, 4, 3, 2):
        image = 0.43 + 0.02 * count * (torch.rand(3, height, width, generator=generator) - 0.5)
        for index in range(count):
            tall, wide, down, right = torch.rand(4, generator=generator).tolist()
            rows, columns = max(1, int(height * (0.1 + 0.3 * tall))), max(1, int(width * (0.1 + 0.3 * wide)))
            top, left = int((height - rows) * down), int((width - columns) * right)
            image[:, top : top + rows, left : left + columns] = 0.95 if index % 2 else 0.05
        yield image


def _same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> Tensor:
    """(n, m): whether a detection of one is a detection of the other."""
    (boxes, labels, scores), (boxes_too, labels_too, scores_too) = one[:3], other[:3]
    near = (boxes[:, None] - boxes_too[None]).abs().amax(-1) <= _SAME_PIXELS
    same = (_overlap(boxes, boxes_too) >= _SAME_BOX) | near
    same &= labels[:, None] == labels_too[None]
    same &= (scores[:, None] - scores_too[None]).abs() <= _SAME_SCORE
    for mask, mask_too in zip(one[3:], other[3:], strict=True):
        for row, column in same.nonzero().tolist():
            same[row, column] = _shared(mask[row], mask_too[column]) >= _SAME_MASK
    return same


def _overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """(n, m): intersection over union of boxes x1, y1, x2, y2."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    areas, others_areas = ((b[:, 2:] - b[:, :2]).clamp(min=0).prod(-1) for b in (boxes, others))
    return common / (areas[:, None] + others_areas[None] - common).clamp(min=1e-9)


def _shared(mask: Tensor, other: Tensor) -> float:
    """Intersection over union of two masks of shares."""
    if mask.shape != other.shape:
        return 0.0
    whole = float(torch.maximum(mask, other).sum())
    return float(torch.minimum(mask, other).sum()) / whole if whole else 1.0


def _is_found(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(name), Tensor) for name in _NAMES)
