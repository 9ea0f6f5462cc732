"""Batches of images with boxes, as torchvision's detectors take them.

A batch is (images, targets): float32 (3, H, W) in [0, 1] of any sizes, and for each a mapping of ``boxes`` (n, 4),
``labels`` (n,) and, if asked for, ``masks`` (n, H, W).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from raydistill.datasets.decode import decode_image
from raydistill.datasets.split import raw_stream, seeded_permutation
from raydistill.tasks.base import TRAIN, Loading
from raydistill.tasks.detection.coco import Annotated, masks_of
from raydistill.tasks.feeds import batch_bounds, own_rows, row_counts, share

Target = dict[str, Tensor]
DetectionBatch = tuple[list[Tensor], list[Target]]
_FLIP = 4


class DetectionFeed:
    """One split; train is shuffled and mirrored by (seed, epoch). pixels: decoded images; () decodes them anew.

    samples: of the train split, of all ranks; else of this one.
    """

    def __init__(
        self, images: Sequence[Annotated], pixels: Sequence[np.ndarray], split: str, loading: Loading,
        masks: bool = False, flips: bool = True,
    ) -> None:  # fmt: skip
        self._images, self._pixels, self._loading, self._masks = images, pixels, loading, masks
        self._is_train = split == TRAIN
        self._flips = flips and self._is_train
        self._used = share(len(images), loading.fraction, f"training.effective_{split}_size")
        self._bounds = batch_bounds(self._used, loading.batch_size)
        self.batches = len(self._bounds)
        own = sum(self.rows(index)[0] for index in range(self.batches))
        self.samples = self._used if self._is_train else own

    def rows(self, index: int) -> tuple[int, int]:
        """(this rank's, all ranks') rows of a batch; 0 where it was given a row that is another's."""
        return row_counts(*self._bounds[index], self._loading.ranks)

    def epoch(self, epoch: int) -> Iterator[DetectionBatch]:
        """All batches of one epoch (from 0)."""
        count, seed, ranks = len(self._images), self._loading.seed, self._loading.ranks
        if self._is_train:
            order = seeded_permutation(count, seed, epoch)[: self._used]
        else:
            order = np.sort(seeded_permutation(count, 0)[: self._used])
        flipped = raw_stream(count, seed, epoch, _FLIP) >> np.uint64(63) == 1
        for start, stop in self._bounds:
            rows = own_rows(start, stop, ranks) if self._is_train else slice(start + ranks.rank, stop, ranks.world)
            items = [self._item(int(i), self._flips and bool(flipped[i])) for i in order[:stop][rows]]
            if items:
                yield [image for image, _ in items], [target for _, target in items]

    def _item(self, position: int, flip: bool) -> tuple[Tensor, Target]:
        found = self._images[position]
        pixels = self._pixels[position] if self._pixels else decode_image(found.file, None, resize=False)
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255
        kept = ~found.crowd if self._is_train else np.ones(len(found.boxes), dtype=bool)
        boxes = torch.from_numpy(found.boxes[kept])
        target = {"boxes": boxes, "labels": torch.from_numpy(found.labels[kept])}
        if self._masks:
            target["masks"] = torch.from_numpy(masks_of(found)[kept])
        if not self._is_train:
            target["iscrowd"] = torch.from_numpy(found.crowd[kept]).long()
        if flip:
            image = image.flip(2)
            target["boxes"] = torch.stack(
                [found.width - boxes[:, 2], boxes[:, 1], found.width - boxes[:, 0], boxes[:, 3]], dim=1
            )
            if self._masks:
                target["masks"] = target["masks"].flip(2)
        device = self._loading.device
        return image.to(device), {key: value.to(device) for key, value in target.items()}
