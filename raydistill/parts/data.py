"""The ``dataset`` section of a run: which images, how split, how augmented.

Its annotations are no strings: pydantic before 2.10 would look for their names in the sections' module.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from raydistill.errors import ConfigError, Fault
from raydistill.parts.kinds import Count, Fraction, Own, Whole
from raydistill.parts.setting import Role, Setting


def sides(text: str) -> tuple[int, int]:
    """``224x224`` (height, width), or ``224`` for both."""
    parts = [part.strip() for part in text.lower().replace(",", "x").split("x")]
    if len(parts) not in (1, 2) or not all(part.isdecimal() and 0 < int(part) < 1 << 16 for part in parts):
        raise ConfigError(Fault("--image-size", "must be height x width in pixels", text, "such as 224x224"))
    return int(parts[0]), int(parts[-1])


_OTHER_DATA = Setting(option=None, role=Role.MAY_CHANGE)
"""Data are known by what they are: a run's identity holds their name, a sweep's journal their fingerprint."""


@dataclass(frozen=True)
class DatasetConfig:
    """name: ``cifar10``, ``imagefolder``, ``digits``, one of torchvision's (``mnist``, ``fashion_mnist``, ``kmnist``,
    ``emnist``, ``usps``, ``svhn``, ``cifar100``, ``stl10``), ``hugging_face`` (a local folder) or
    ``pkg.mod:factory``.

    data_dir: a cifar-10-batches-py folder (or its parent) or an image-folder tree; of other tasks than classification
    what they say. fallback: the dataset to go on with where `name` is neither on disk nor downloadable. validation:
    fraction of train held out, chosen with split_seed, stratified over the classes. image_size: (height, width) that
    all images are brought to; left out, images of one size stay as they are, and of those of mixed sizes the middle is
    taken, as is usual for ImageNet. in_memory: ``auto`` decodes once if the decoded images fit, True insists, False
    streams. augment: ``crop`` (random crop with padding 4), ``crop_flip`` (and horizontal flip), ``resized_crop`` (a
    random part of any size and shape, and flip; image folders only), ``none``, ``auto``: what the dataset itself
    recommends, or ``pkg.mod:AUGMENTATION`` (see `raydistill.datasets.augmentation`). channels: ``rgb``, or ``grey`` for
    networks of one input channel.
    """

    name: Annotated[
        str,
        Setting(
            "cifar10, imagefolder, digits, mnist, svhn, ... or pkg.mod:factory.", option="dataset", role=Role.MAY_CHANGE
        ),
    ] = "cifar10"
    data_dir: Annotated[
        str | None,
        Setting("CIFAR-10's folder, a tree of class folders, or what else the task reads.", role=Role.FREE, path=True),
    ] = None
    fallback: Annotated[str | None, _OTHER_DATA] = None
    workers: Annotated[Whole, Setting("Processes that decode streamed images.", ("-j",), role=Role.FREE)] = 2
    image_size: Annotated[
        tuple[Count, Count] | None,
        Setting(
            "Resize all images to this; left out, as the weights want them.",
            role=Role.MAY_CHANGE,
            metavar="HxW",
            read=sides,
        ),
    ] = None
    augment: Annotated[
        Literal["auto", "none", "crop", "crop_flip", "resized_crop"] | Own,
        Setting("none, crop, crop_flip, resized_crop, pkg.mod:MINE, or auto."),
    ] = "auto"
    channels: Annotated[
        Literal["rgb", "grey"],
        Setting("rgb, or grey for a network of one input channel.", role=Role.MAY_CHANGE),
    ] = "rgb"
    validation: Annotated[
        Fraction, Setting("Fraction of train held out to validate on.", ("--vs",), option="validation-split")
    ] = 0.1
    split_seed: Annotated[Whole, Setting(option=None)] = 0
    in_memory: Annotated[bool | Literal["auto"], _OTHER_DATA] = "auto"
    download: Annotated[bool, Setting(option=None, role=Role.FREE)] = True
    args: Annotated[Mapping[str, Any], _OTHER_DATA] = field(default_factory=dict)
