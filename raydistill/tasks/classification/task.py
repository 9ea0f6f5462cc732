"""Images with one label each: resident on the device where they fit, cross-entropy, top1 and top5. Or with several:
binary cross-entropy, mean average precision and F1 (see `multi_label`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raydistill import datasets, models
from raydistill.datasets import BatchedDataset, Dataset, DatasetConfig, Preprocessing
from raydistill.errors import CheckpointError, ConfigError, Fault
from raydistill.metrics import FRACTION, MAX, Metric
from raydistill.models.menu import MENU
from raydistill.parts import identity as of_parts
from raydistill.tasks.base import TRAIN, Batch, Feed, Loading, Network, Task, TaskShape, Weights
from raydistill.tasks.classification import multi_label
from raydistill.tasks.classification.batched_feed import BatchedFeed
from raydistill.tasks.classification.evaluate import evaluate
from raydistill.tasks.classification.feed import EvalFeed, TrainFeed
from raydistill.tasks.classification.fingerprint import fingerprint_of_dataset
from raydistill.tasks.classification.loss import EarlyExit, classification_loss, own_loss
from raydistill.tasks.classification.metrics import METRICS
from raydistill.tasks.classification.preprocessing import as_said, described, difference, of_weights, sized, translated

FLOATS = "its images are floats and are used as they are: nothing is normalised or resized"
_SEVERAL = "task.args.multi_label"
_EXIT_ARGUMENTS = ("loss_weights", "thresholds")


@dataclass(frozen=True)
class ImageShape:
    """What is known of images before they are read. image_shape: (C, H, W)."""

    num_classes: int
    image_shape: tuple[int, ...]

    def network(
        self, arch: str, arguments: Mapping[str, object], where: str = "model.arch", fetch: bool = True
    ) -> nn.Module:
        return models.create(arch, self.num_classes, arguments, where, fetch)

    def example_input(self, rows: int = 1) -> tuple[Tensor, ...]:
        return (torch.zeros(rows, *self.image_shape),)


class Classification(Task):
    """dataset: its images. seen: what the network sees of them; None: the dataset's own preprocessing. early_exit: for
    a network with several exits. own_loss: ``pkg.mod:LOSS``; "" is the cross-entropy.

    The arguments of `load`: ``loss``, ``loss_weights`` and ``thresholds`` of early exits, and ``multi_label: true``
    where images have several labels each.
    """

    metrics = METRICS

    def __init__(
        self,
        dataset: Dataset,
        seen: Preprocessing | None = None,
        early_exit: EarlyExit | None = None,
        own_loss: str = "",
    ) -> None:
        self.dataset, self.early_exit, self.own_loss = dataset, early_exit, own_loss
        seen = None if dataset.as_they_are else seen
        self.preprocessing = seen or dataset.preprocessing
        self.name, self.used_fallback = dataset.name, dataset.used_fallback
        self.warning, self.note = dataset.warning, FLOATS if dataset.as_they_are else difference(seen, dataset)
        self.metrics = multi_label.METRICS if dataset.multi_label else {**METRICS, **_of_exits(early_exit)}

    @classmethod
    def load(cls, data: DatasetConfig, weights: Weights, **args: Any) -> Classification:
        wanted = sized(of_weights(weights), data.image_size)
        early_exit, loss, several = _early_exit(args), _checked_loss(args), _several(args)
        dataset = datasets.load(data, wanted=wanted, made_for=_made_for(weights))
        if dataset.multi_label != several:
            has = "several labels an image" if dataset.multi_label else "one label an image"
            way_out = "leave it out" if several else "task: {args: {multi_label: true}}"
            raise ConfigError(Fault(_SEVERAL, f"dataset '{dataset.name}' has {has}", several, way_out))
        return cls(dataset, wanted or as_said(weights.pixels, dataset), early_exit, loss)

    @classmethod
    def judged_by(cls, **args: object) -> Mapping[str, Metric]:
        return multi_label.METRICS if _several(args) else METRICS

    @classmethod
    def check(cls, data: DatasetConfig) -> None:
        datasets.check(data)

    @classmethod
    def foreseen(cls, data: DatasetConfig, **args: object) -> TaskShape | None:
        _checked_loss(args)
        known = datasets.facts(data)
        return None if known is None else ImageShape(*known)

    @property
    def shape(self) -> ImageShape:
        return ImageShape(self.dataset.num_classes, self.preprocessing.image_shape)

    def network(
        self, arch: str, arguments: Mapping[str, object], where: str = "model.arch", fetch: bool = True
    ) -> nn.Module:
        return self.shape.network(arch, arguments, where, fetch)

    def example_input(self, rows: int = 1) -> tuple[Tensor, ...]:
        return self.shape.example_input(rows)

    def feed(self, split: str, loading: Loading) -> Feed:
        if isinstance(self.dataset, BatchedDataset):
            return BatchedFeed(self.dataset, split, loading, self.preprocessing)
        size, fraction, device, ranks, seen = (
            loading.batch_size, loading.fraction, loading.device, loading.ranks, self.preprocessing,
        )  # fmt: skip
        if split == TRAIN:
            return TrainFeed(
                self.dataset, size, device, loading.seed, fraction=fraction, ranks=ranks, preprocessing=seen
            )
        return EvalFeed(self.dataset, split, size, device, fraction=fraction, ranks=ranks, preprocessing=seen)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        images, labels = batch
        if self.dataset.multi_label:
            of = own_loss(self.own_loss, True).of if self.own_loss else multi_label.binary_cross_entropy
            return classification_loss(network(images), labels.float(), (), of)
        weights = self.early_exit.loss_weights if self.early_exit is not None else ()
        if self.own_loss:
            return classification_loss(network(images), labels, weights, own_loss(self.own_loss).of)
        return classification_loss(network(images), labels, weights)

    def evaluate(self, network: nn.Module, feed: Any, loading: Loading) -> Mapping[str, float]:
        if self.dataset.multi_label:
            several = multi_label.evaluate_multi_label
            return several(network, feed.epoch(0), "", loading.device, loading.precision, loading.ranks).metrics
        thresholds = self.early_exit.thresholds if self.early_exit is not None else ()
        found = evaluate(network, feed.epoch(0), "", loading.device, loading.precision, thresholds, loading.ranks)
        return found.metrics

    def wanted_by(self, weights: Weights, data: DatasetConfig | None = None) -> Classification:
        size = None if data is None else data.image_size
        wanted = sized(of_weights(weights), size) or as_said(weights.pixels, self.dataset)
        if wanted is None and weights.content is not None and weights.content.get("plain"):
            wanted = sized(self.preprocessing, size)  # they say nothing: as it was loaded for them
        return Classification(self.dataset, wanted, self.early_exit, self.own_loss)

    def as_trained(self, run: Mapping[str, Any]) -> Classification:
        said = run.get("early_exit") or {}
        if self.early_exit is not None or not said:
            return self
        early_exit = EarlyExit(*(tuple(said.get(name, ())) for name in _EXIT_ARGUMENTS))
        return Classification(self.dataset, self.preprocessing, early_exit, self.own_loss)

    def check_knows(self, content: Mapping[str, object], where: str) -> None:
        if not content.get("plain") and content.get("num_classes") != self.dataset.num_classes:
            rule = f"knows other classes: {self.name} has {self.dataset.num_classes}"
            raise CheckpointError(Fault(where, rule, content.get("num_classes")))

    def teach(self, teacher: nn.Module, weights: Weights) -> nn.Module:
        """Where the teacher wants other preprocessing, it gets it; of images that are used as they are nobody knows."""
        if self.dataset.as_they_are:
            return teacher
        return translated(teacher, self.preprocessing, of_weights(weights))

    def described(self) -> dict[str, Any]:
        return {
            "classes": list(self.dataset.classes),
            "num_classes": self.dataset.num_classes,
            **({"multi_label": True} if self.dataset.multi_label else {}),
            **described(self.preprocessing),
        }

    def identity(self, data: DatasetConfig) -> dict[str, Any]:
        own = self.preprocessing == self.dataset.preprocessing
        return {
            **of_parts(data),
            **({} if self.early_exit is None else {"early_exit": asdict(self.early_exit)}),
            **({"loss": self.own_loss} if self.own_loss else {}),
            **({"multi_label": True} if self.dataset.multi_label else {}),
            **({} if own else {"preprocessing": self.preprocessing.to_plain()}),
        }

    @property
    def nbytes(self) -> int:
        return self.dataset.nbytes

    def fingerprint(self) -> str:
        return fingerprint_of_dataset(self.dataset)


def _early_exit(args: Mapping[str, object]) -> EarlyExit | None:
    unknown = sorted(set(args) - {*_EXIT_ARGUMENTS, "loss", "multi_label"})
    if unknown:
        known = ", ".join((*_EXIT_ARGUMENTS, "loss", "multi_label"))
        raise ConfigError(Fault(f"task.args.{unknown[0]}", "unknown key", args[unknown[0]], f"it takes {known}"))
    if not set(args) & set(_EXIT_ARGUMENTS):
        return None
    if _several(args):
        raise ConfigError(Fault(_SEVERAL, "early exits are for one label an image", True, "leave one of them out"))
    return EarlyExit(*(_numbers(args.get(name, ())) for name in _EXIT_ARGUMENTS))


def _checked_loss(args: Mapping[str, object]) -> str:
    path = args.get("loss", "")
    if path == "":
        return ""
    if not isinstance(path, str) or ":" not in path:
        raise ConfigError(Fault("task.args.loss", "must be one's own, as pkg.mod:LOSS", path))
    own_loss(path, _several(args))
    return path


def _several(args: Mapping[str, object]) -> bool:
    value = args.get("multi_label", False)
    if not isinstance(value, bool):
        raise ConfigError(Fault(_SEVERAL, "must be true or false", value))
    return value


def _numbers(value: object) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _of_exits(early_exit: EarlyExit | None) -> dict[str, Metric]:
    if early_exit is None:
        return {}
    kinds = ("top1", "taken") if early_exit.thresholds else ("top1",)
    exits = range(len(early_exit.loss_weights) + 1)
    return {f"exit{index}/{kind}": Metric(MAX, FRACTION) for index in exits for kind in kinds}


def _made_for(weights: Weights) -> tuple[int, int] | None:
    if ":" in weights.arch or weights.arch not in MENU:
        return None
    shape = models.domain(weights.arch, weights.arguments).image_shape
    return None if shape is None else shape[1:]
