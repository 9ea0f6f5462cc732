"""Which preprocessing a run or a checkpoint has: that of the weights it begins with, else the data's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill import datasets, models
from raydistill.datasets import Dataset
from raydistill.datasets.preprocessing import LUMINANCE, Preprocessing, imagenet_geometry
from raydistill.models.menu import CIFAR, MENU
from raydistill.models.pretrained import published
from raydistill.training import checkpoint as saved
from raydistill.training.config import RunConfig
from raydistill.training.distiller_checkpoint import read_any

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


def of_run(config: RunConfig) -> Preprocessing | None:
    """That of the weights a run begins with, or has in its folder already; None where it trains from scratch. Of a size
    that the run itself asks for, images are that large.

    Raises:
        CheckpointError, ConfigError: those weights cannot be used.
    """
    return sized(_of_weights(config), config.dataset.image_size)


def sized(wanted: Preprocessing | None, size: Sequence[int] | None) -> Preprocessing | None:
    """The same for images of another size, where one is asked for."""
    if wanted is None or size is None or wanted.image_size == tuple(size):
        return wanted
    return replace(wanted, image_size=(size[0], size[1]), resize=None)


def _of_weights(config: RunConfig) -> Preprocessing | None:
    own = Path(config.out_dir) / saved.FILE_NAME if config.out_dir is not None and config.resume else None
    for path in (own, config.continue_from, config.init_from):
        if path is not None and (path is not own or own.exists()):  # type: ignore[union-attr]
            return of_checkpoint(read_any(path), str(path), config.arch)
    weights = config.model_args.get("pretrained") if ":" not in config.arch else None
    return of_published(config.arch, weights, "model.args.pretrained") if weights else None


def images_of(config: RunConfig, wanted: Preprocessing | None) -> Dataset:
    """The run's images as its weights want them; those of mixed sizes as large as the architecture was made for."""
    return datasets.load(config.dataset, wanted=wanted, made_for=_made_for(config))


def _made_for(config: RunConfig) -> tuple[int, int] | None:
    if ":" in config.arch or config.arch not in MENU:
        return None
    shape = models.domain(config.arch, config.model_args).image_shape
    return None if shape is None else shape[1:]


def difference(wanted: Preprocessing | None, dataset: Dataset) -> str:
    """The line that says how the weights' preprocessing differs from the dataset's own; "" where it does not."""
    said = "" if wanted is None else wanted.differs_from(dataset.preprocessing)
    return f"images are prepared as the weights want them: {said}" if said else ""


def removed_layers(content: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments of a checkpoint's model that its weights mean nothing without."""
    arguments = ((content or {}).get("run") or {}).get("model_args") or {}
    return {key: arguments[key] for key in ("removed",) if key in arguments}


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

    def forward(self, images: Tensor) -> Any:
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


def published_checkpoint(arch: str, num_classes: int | None) -> dict[str, Any]:
    """The content of a checkpoint that holds published weights, as if a run of no epochs had begun with them.

    num_classes: of the last layer, which is random where the weights have another number; None: theirs.

    Raises:
        ConfigError: there are none of this architecture. CheckpointError: they cannot be had.
    """
    seen = of_published(arch, True, "--pretrained")
    classes = num_classes or models.default_num_classes(arch, "--arch")
    arguments = {"pretrained": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.create(arch, classes, arguments, "--arch")
    return {
        "epoch": -1,
        "run": {"arch": arch, "model_args": arguments},
        "schedule": "",
        "schedule_hash": saved.schedule_hash(""),
        "precision": "fp32",
        "num_classes": classes,
        **described(seen),
        "model": model.state_dict(),
        "optimizer": {},
        "scheduler": {"masks": {}, "policies": []},
        "rng": None,
        "history": [],
    }


def described(seen: Preprocessing) -> dict[str, Any]:
    """The keys of a checkpoint that say it."""
    return {
        "preprocessing": seen.to_plain(),
        "mean": list(seen.mean),
        "std": list(seen.std),
        "image_shape": list(seen.image_shape),
    }
