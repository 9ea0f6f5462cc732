"""Which preprocessing weights want: what a checkpoint or those who published them say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill import models
from raydistill.datasets import Dataset
from raydistill.datasets.preprocessing import LUMINANCE, Preprocessing, imagenet_geometry
from raydistill.models.menu import CIFAR, MENU
from raydistill.models.pretrained import published
from raydistill.parts import Pixels
from raydistill.tasks.base import Weights

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_DISTILLERS_RESIZE = {299: 336}
"""Distiller resizes images for Inception to another proportion than all others."""


def of_checkpoint(content: Mapping[str, Any], where: str, arch: str | None = None) -> Preprocessing | None:
    """What a checkpoint's network was trained on (a content of `read_any`); None where nobody can say.

    arch: its architecture, where the file says none that is on the menu.

    Raises:
        CheckpointError: what it says of it is damaged.
    """
    if content.get("preprocessing") is not None:
        return Preprocessing.from_plain(content["preprocessing"], where)
    if "mean" in content and "std" in content and "image_shape" in content:  # before it was a value of its own
        shape = content["image_shape"]
        size = shape[1:] if isinstance(shape, (list, tuple)) else shape
        return Preprocessing.from_plain({"mean": content["mean"], "std": content["std"], "image_size": size}, where)
    if "parameters" not in content:
        return None
    said = content["run"]["arch"]
    return of_distiller(said if said in MENU else arch)


def of_distiller(arch: str | None) -> Preprocessing | None:
    """Distiller's for an architecture: 0.5 for CIFAR's, ImageNet's for all others of the menu."""
    if arch is None or ":" in arch or arch not in MENU:
        return None
    made_for = models.domain(arch, {})
    if made_for.image_shape is None:
        return None
    size = made_for.image_shape[1:]
    if made_for == CIFAR:
        return Preprocessing((0.5,) * 3, (0.5,) * 3, size)
    return Preprocessing(*_IMAGENET, size, _DISTILLERS_RESIZE.get(size[0], imagenet_geometry(size)))


def of_published(arch: str, weights: bool | str, where: str) -> Preprocessing:
    """What torchvision's published weights want, as their own transforms say it; nothing is downloaded.

    Raises:
        ConfigError: there are no such weights.
    """
    wanted = published(arch, weights, where).transforms()
    crop, resize = wanted.crop_size[-1], wanted.resize_size[-1]
    return Preprocessing(tuple(wanted.mean), tuple(wanted.std), (crop, crop), resize, wanted.interpolation.value, "rgb")


def of_weights(weights: Weights) -> Preprocessing | None:
    """That of the weights that a network begins with; None where it trains from scratch, or where nobody can say.

    Raises:
        CheckpointError, ConfigError: those weights cannot be used.
    """
    if weights.content is not None:
        return of_checkpoint(weights.content, weights.where, weights.arch)
    published_ones = weights.arguments.get("pretrained") if ":" not in weights.arch else None
    return of_published(weights.arch, published_ones, weights.where) if published_ones else None


def sized(wanted: Preprocessing | None, size: Sequence[int] | None) -> Preprocessing | None:
    """The same for images of another size, where one is asked for."""
    if wanted is None or size is None or wanted.image_size == tuple(size):
        return wanted
    return replace(wanted, image_size=(size[0], size[1]), resize=None)


def as_said(pixels: Pixels, dataset: Dataset) -> Preprocessing | None:
    """The dataset's own with the mean and deviation that the user says; None where nobody says any."""
    own = dataset.preprocessing
    if pixels.mean is None or pixels.std is None or len(pixels.mean) != len(own.mean):
        return None
    return replace(own, mean=pixels.mean, std=pixels.std)


def difference(wanted: Preprocessing | None, dataset: Dataset) -> str:
    """The line that says how the weights' preprocessing differs from the dataset's own; "" where it does not."""
    said = "" if wanted is None else wanted.differs_from(dataset.preprocessing)
    return f"images are prepared as the weights want them: {said}" if said else ""


class Translated(nn.Module):
    """A network that is fed what another one's preprocessing gave, and sees what its own would have.

    Where the two sizes differ, the image as the other one saw it is resized, bilinear.
    """

    def __init__(self, network: nn.Module, given: Preprocessing, wanted: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.given_mean: Tensor
        self.given_std: Tensor
        self.wanted_mean: Tensor
        self.wanted_std: Tensor
        self.grey: Tensor
        self._given, self._wanted = given, wanted
        for name, values in (("mean", given.mean), ("std", given.std)):
            self.register_buffer(f"given_{name}", torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        for name, values in (("mean", wanted.mean), ("std", wanted.std)):
            self.register_buffer(f"wanted_{name}", torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("grey", torch.tensor(LUMINANCE).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> object:
        pixels = images * self.given_std + self.given_mean
        source, target = self._given.channels, self._wanted.channels
        if source != target:
            if source == "bgr":
                pixels = pixels.flip(1)
            if target == "grey":
                pixels = (pixels * self.grey).sum(1, keepdim=True)
            elif source == "grey":
                pixels = pixels.expand(-1, 3, -1, -1)
            elif target == "bgr":
                pixels = pixels.flip(1)
        if self._given.image_size != self._wanted.image_size:
            size = self._wanted.image_size
            pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
        return self.network((pixels - self.wanted_mean) / self.wanted_std)


def translated(network: nn.Module, given: Preprocessing | None, wanted: Preprocessing | None) -> nn.Module:
    """`Translated` where it makes a difference, else the network itself. None stands for what nobody knows."""
    if given is None or wanted is None:
        return network
    same = (given.mean, given.std, given.image_size, given.channels) == (
        wanted.mean, wanted.std, wanted.image_size, wanted.channels
    )  # fmt: skip
    return network if same else Translated(network, given, wanted)


def described(seen: Preprocessing) -> dict[str, Any]:
    """The keys of a checkpoint that say it."""
    return {
        "preprocessing": seen.to_plain(),
        "mean": list(seen.mean),
        "std": list(seen.std),
        "image_shape": list(seen.image_shape),
    }
