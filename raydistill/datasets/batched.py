"""A dataset that is neither in memory nor image files: torch's own kinds, read batch by batch as training goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from raydistill.datasets.preprocessing import Preprocessing

if TYPE_CHECKING:  # torch, which the rest of this takes no second to import
    from torch.utils.data import DataLoader, Dataset


@dataclass(frozen=True)
class Part:
    """One split. source: a map-style Dataset, an IterableDataset or a DataLoader, whose own batches and order are kept.

    sizes: rows of each of a DataLoader's batches; () of the others, which are cut into batches of the run's size.
    count: its images. index: which items of a map-style one; None: all.
    """

    source: Dataset[object] | DataLoader[object]
    count: int
    sizes: tuple[int, ...] = ()
    index: np.ndarray | None = None


@dataclass(frozen=True)
class BatchedDataset:
    """parts: ``train``, ``validation`` and ``test``. image_size: (height, width). channels: ``rgb`` or ``grey``.

    mean, std: of a sample of train pixels scaled to [0, 1]. as_they_are: its images are floats, which nobody
    normalises or resizes. multi_label: an image may have several labels. workers: processes that read a map-style one.
    resize: whether items are brought to image_size. source: what it was made of, for its fingerprint.
    """

    name: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    parts: Mapping[str, Part]
    image_size: tuple[int, int]
    channels: str = "rgb"
    as_they_are: bool = False
    multi_label: bool = False
    resize: bool = False
    workers: int = 2
    augment: str = "none"
    used_fallback: bool = False
    warning: str = ""
    arguments: Mapping[str, object] = field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return len(self.mean), *self.image_size

    @property
    def preprocessing(self) -> Preprocessing:
        """The dataset's own, that networks which are trained on it from the beginning have."""
        return Preprocessing(self.mean, self.std, self.image_size, channels=self.channels)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def nbytes(self) -> int:
        """Bytes of what is in memory of it: next to nothing, as far as can be known."""
        return 0

    def described(self) -> str:
        """What a sweep goes on with only if it is the same; pixels are not looked at."""
        parts = {name: (part.count, part.sizes) for name, part in sorted(self.parts.items())}
        held = {name: [] if part.index is None else part.index.tolist() for name, part in sorted(self.parts.items())}
        return repr((self.name, self.classes, self.mean, self.std, self.image_shape, dict(self.arguments), parts, held))
