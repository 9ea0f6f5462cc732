"""Objects in images: torchvision's detectors, or a network of one's own that is called as they are."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raydistill import models
from raydistill.datasets import DatasetConfig
from raydistill.datasets.decode import decode_image
from raydistill.datasets.memory import available_memory
from raydistill.datasets.split import stratified_split
from raydistill.errors import ABSENT, CheckpointError, ConfigError, DataError, Fault
from raydistill.tasks.base import TEST, TRAIN, VALIDATION, Batch, Feed, Loading, Network, Task, Weights
from raydistill.tasks.detection.coco import Annotated, Instances, read_split
from raydistill.tasks.detection.evaluate import METRICS, detection_loss, evaluate_detection
from raydistill.tasks.detection.feed import DetectionFeed
from raydistill.tasks.files import check_no_images

_WHERE = "dataset.data_dir"
_BACKGROUND = "background"
_LAYOUT = "a folder in COCO's layout"


class Detection(Task):
    """Boxes around objects in images, and their classes: torchvision's detectors, or a network of one's own that is
    called as they are; mean average precision selects.

    folder: in COCO's layout, ``annotations/instances_train*.json``, ``..._val*.json``, perhaps ``..._test*.json``,
    and a folder of images for each. Without test, val is the test split and `validation` of train is held out.

    masks: whether targets have masks, for Mask R-CNN. flips: whether train images are mirrored at random. A network is
    told ``num_classes``: those of the file, and the background.
    """

    metrics = METRICS

    def __init__(
        self, folder: str, masks: bool = False, flips: bool = True, validation: float = 0.1, split_seed: int = 0
    ) -> None:
        root = Path(folder).expanduser()
        self.masks, self.flips = masks, flips
        splits, self.classes = _splits(root, validation, split_seed)
        self.splits = splits
        needed = sum(image.height * image.width * 3 for images in splits.values() for image in images)
        self._pixels: dict[str, list[np.ndarray]] = {}
        if needed * 4 <= available_memory():
            self._pixels = {split: [_decoded(image) for image in images] for split, images in splits.items()}
        self.name = root.name

    @classmethod
    def check(cls, data: DatasetConfig) -> None:
        check_no_images(data, why="is for images with labels, not for detection")

    @classmethod
    def load(  # type: ignore[override]  # the arguments are bound to this signature
        cls, data: DatasetConfig, weights: Weights, masks: bool = False, flips: bool = True
    ) -> Detection:
        """data: its data_dir is the folder."""
        cls.check(data)
        for key, value in (("masks", masks), ("flips", flips)):
            if not isinstance(value, bool):
                raise ConfigError(Fault(f"task.args.{key}", "must be true or false", value))
        if data.data_dir is None:
            raise ConfigError(Fault(_WHERE, f"must be given: {_LAYOUT}", ABSENT, "give --data-dir"))
        return cls(data.data_dir, masks, flips, data.validation, data.split_seed)

    def network(
        self, arch: str, arguments: Mapping[str, Any], where: str = "model.arch", fetch: bool = True
    ) -> nn.Module:
        network = models.create(arch, len(self.classes) + 1, arguments, where, fetch)
        try:
            inspect.signature(network.forward).bind([], [])
        except TypeError as error:
            rule = f"must be a detector, which is called with images and targets when it trains ({error})"
            way_out = "use raydistill.models.detector:detector, or one of your own (pkg.mod:factory)"
            raise ConfigError(Fault(where, rule, arch, way_out)) from error
        return network

    def example_input(self, rows: int = 1) -> tuple[Tensor, ...]:
        first = self.splits[TRAIN][0]
        return (torch.zeros(rows, 3, first.height, first.width),)

    def example_batch(self, rows: int, device: torch.device) -> Batch:
        return next(self.feed(TRAIN, Loading(device, rows)).epoch(0))

    def feed(self, split: str, loading: Loading) -> DetectionFeed:
        return DetectionFeed(self.splits[split], self._pixels.get(split, ()), split, loading, self.masks, self.flips)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        return detection_loss(network, batch)

    def evaluate(self, network: nn.Module, feed: Feed, loading: Loading) -> Mapping[str, float]:
        return evaluate_detection(network, feed.epoch(0), loading)

    def judge(self, network: nn.Module, feed: Feed, loading: Loading) -> Mapping[str, float]:
        return evaluate_detection(network, feed.epoch(0), loading, with_loss=False)

    def check_knows(self, content: Mapping[str, Any], where: str) -> None:
        if not content.get("plain") and content.get("num_classes") != len(self.classes) + 1:
            rule = f"knows other classes: {self.name} has {len(self.classes)} and the background"
            raise CheckpointError(Fault(where, rule, content.get("num_classes")))

    def described(self) -> dict[str, Any]:
        first = self.splits[TRAIN][0]
        classes = [_BACKGROUND, *self.classes]
        return {"num_classes": len(classes), "classes": classes, "image_shape": [3, first.height, first.width]}

    def identity(self, data: DatasetConfig) -> dict[str, Any]:
        return {"masks": self.masks, "flips": self.flips, "validation": data.validation, "split_seed": data.split_seed}

    @property
    def nbytes(self) -> int:
        return sum(pixels.nbytes for images in self._pixels.values() for pixels in images)


def _splits(root: Path, validation: float, split_seed: int) -> tuple[dict[str, tuple[Annotated, ...]], tuple[str, ...]]:
    if not root.is_dir():
        raise DataError(Fault(_WHERE, f"must be {_LAYOUT}", str(root), "mend it or give --data-dir"))
    read: dict[str, Instances] = {}
    for split in ("train", "val", "test"):
        found = read_split(root, split)
        if found is not None:
            read[split] = found
    if "train" not in read or len(read) < 2:
        rule = f"'{root}/annotations' must hold instances_train*.json, and instances_val*.json or instances_test*.json"
        raise DataError(Fault(_WHERE, rule, sorted(read) or "none of them"))
    classes = read["train"].classes
    other = next((split for split, found in read.items() if found.classes != classes), None)
    if other is not None:
        raise DataError(Fault(_WHERE, f"{other} must have the categories of train", read[other].classes))
    train = read["train"].images
    if len(read) == 3:
        return {TRAIN: train, VALIDATION: read["val"].images, TEST: read["test"].images}, classes
    kept, held_out = stratified_split(np.zeros(len(train), dtype=np.int64), validation, split_seed, ("all",))
    tested = read["val" if "val" in read else "test"].images
    return {TRAIN: tuple(train[i] for i in kept), VALIDATION: tuple(train[i] for i in held_out), TEST: tested}, classes


def _decoded(image: Annotated) -> np.ndarray:
    """Raises DataError: it has another size than the file of annotations says."""
    pixels = decode_image(image.file, None, resize=False)
    if pixels.shape[:2] != (image.height, image.width):
        rule = f"must be of {image.height}x{image.width} (height x width), as its annotations say"
        raise DataError(Fault(image.file, rule, f"{pixels.shape[0]}x{pixels.shape[1]}"))
    return pixels
