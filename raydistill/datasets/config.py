"""The ``dataset`` section of a run: which images, how split, how augmented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DatasetConfig:
    """name: ``cifar10``, ``imagefolder``, ``digits`` or ``pkg.mod:factory``.

    data_dir: a cifar-10-batches-py folder (or its parent) or an image-folder tree. fallback: the dataset to go on with
    where `name` is neither on disk nor downloadable. validation: fraction of train held out, chosen with split_seed,
    stratified over the classes. image_size: (height, width) that all images are brought to; left out, images of one
    size stay as they are, and of those of mixed sizes the middle is taken, as is usual for ImageNet. in_memory:
    ``auto`` decodes once if the decoded images fit, True insists, False streams. augment: ``crop`` (random crop with
    padding 4), ``crop_flip`` (and horizontal flip), ``resized_crop`` (a random part of any size and shape, and flip;
    image folders only), ``none``, ``auto``: what the dataset itself recommends, or ``pkg.mod:AUGMENTATION`` (see
    `augmentation`). channels: ``rgb``, or ``grey`` for
    networks of one input channel.
    """

    name: str = "cifar10"
    data_dir: str | None = None
    fallback: str | None = None
    validation: float = 0.1
    split_seed: int = 0
    image_size: tuple[int, int] | None = None
    in_memory: bool | str = "auto"
    download: bool = True
    workers: int = 2
    augment: str = "auto"
    channels: str = "rgb"
    args: Mapping[str, Any] = field(default_factory=dict)
