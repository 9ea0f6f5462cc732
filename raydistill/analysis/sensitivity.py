"""A network's sensitivity to pruning, measured in parts: what was measured is kept, and the same call goes on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic

import torch
from torch import nn

from raydistill import datasets, tasks
from raydistill.analysis.network import Network
from raydistill.compression.bit_sensitivity import RoundedPoint, analyse_bits
from raydistill.compression.sensitivity import (
    Kind,
    Point,
    analyse,
    read_sensitivity_csv,
    sensitivity_csv,
)
from raydistill.datasets import DatasetConfig
from raydistill.datasets.memory import available_memory
from raydistill.errors import ABSENT, ConfigError, DataError, Fault
from raydistill.files import write_atomically
from raydistill.metrics import Metric, selecting
from raydistill.tasks import Feed, Loading, TaskConfig, Weights
from raydistill.tasks.feeds import Kept
from raydistill.training.allocator import keep_freed_memory
from raydistill.training.start import check_pixels
from raydistill.training.teacher import digest
from raydistill.training.weights_file import num_classes_of

_WRITE_EVERY_S = 2.0


class Sensitivity:
    """A network and a split of its data; batches are kept on the device where they fit.

    dataset, data_dir: None: what the checkpoint was trained on, if that is on the menu. samples: how many of the split
    are used; None: all. task: what the network is for; None: it classifies. weights: the network's, with what
    the user says of their pixels; None: what its file says.

    Raises:
        ConfigError, DataError, CheckpointError: the data cannot be had, or the network knows other classes or words.
    """

    def __init__(
        self,
        network: Network,
        device: torch.device,
        split: str,
        dataset: str | None = None,
        data_dir: Path | None = None,
        samples: int | None = None,
        batch_size: int = 256,
        task: TaskConfig | None = None,
        weights: Weights | None = None,
    ) -> None:
        task = task or TaskConfig()
        classifies = task.name == TaskConfig().name
        content, run = network.content, network.content["run"]
        self.network, self.split = network, split
        if device.type == "cpu":
            keep_freed_memory()
        known_as = digest(network.model.state_dict())
        self.model = network.model.to(device).to(memory_format=torch.channels_last)
        grey = (content.get("preprocessing") or {}).get("channels") == "grey"
        self.dataset = DatasetConfig(
            channels="grey" if grey else "rgb",
            name=dataset or (_on_menu(content.get("dataset", "cifar10"), network.path) if classifies else "cifar10"),
            data_dir=None if data_dir is None else str(data_dir),
            **{key: run[key] for key in ("validation", "split_seed") if key in run},
        )
        begun = weights or network.weights
        self.task = tasks.load(task, self.dataset, begun)
        check_pixels(self.task, begun)
        known = num_classes_of(content, network.arch) if content.get("plain") else content.get("num_classes")
        if classifies and known is not None and (classes := self.task.described()["num_classes"]) != known:
            rule = f"the checkpoint knows {known} classes, {self.task.name} has"
            raise ConfigError(Fault("--dataset", rule, classes, "name the one it was trained on"))
        self.task.check_knows(content, str(network.path))
        fraction = 1.0
        if samples is not None:
            fraction = min(1.0, samples / self.task.feed(split, Loading(device, batch_size)).samples)
        self._loading = Loading(device, batch_size, fraction=fraction, precision=content["precision"])
        self._feed: Feed = self.task.feed(split, self._loading)
        self.samples = self._feed.samples
        if _fits(self.samples, self.task.example_input()[0].shape[1:], device):
            self._feed = Kept(self._feed)
        self.identity = {
            "arch": network.arch,
            "weights": known_as,
            "dataset": self.task.name,
            "split": split,
            "images": self.samples,
            **({"preprocessing": self.task.note} if self.task.note else {}),
        }

    @property
    def metric(self) -> tuple[str, Metric]:
        """The one that selects, by its name."""
        name = selecting(self.task.metrics)
        return name, self.task.metrics[name]

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        return self.task.evaluate(model, self._feed, self._loading)

    def measure(
        self, levels: Sequence[float], sense: str, weights: Sequence[str], kept: KeptPoints[Point]
    ) -> Iterator[Point]:
        """Every point in its order, those that are kept already too; a new one is kept before it is yielded."""
        return _keeping(analyse(self.model, self.evaluate, levels, sense, weights, kept.points), kept)

    def measure_bits(
        self, bits: Sequence[int], weights: Sequence[str], kept: KeptPoints[RoundedPoint]
    ) -> Iterator[RoundedPoint]:
        """The same of weights that are rounded to so many bits."""
        return _keeping(analyse_bits(self.model, self.evaluate, bits, weights, kept.points), kept)


def _keeping(measured: Iterator[Kind], kept: KeptPoints[Kind]) -> Iterator[Kind]:
    for point in measured:
        kept.add(point)
        yield point


class KeptPoints(Generic[Kind]):
    """``sensitivity.csv`` in a folder, and beside it what it was measured with. Both are replaced atomically.

    Raises:
        ConfigError, DataError: the folder holds another analysis, or a damaged one.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, object],
        kind: type[Kind] = Point,  # type: ignore[assignment]
    ) -> None:
        self.csv, about = folder / "sensitivity.csv", folder / "sensitivity.json"
        self._points: dict[tuple[str, float], Kind] = {}
        self._written = time.monotonic()
        if self.csv.exists():
            try:
                before = json.loads(about.read_text())
                differing = [key for key in {**identity, **before} if identity.get(key) != before.get(key)]
            except (OSError, ValueError, TypeError, AttributeError) as error:
                way_out = "choose another folder with -o, or remove it"
                rule = "cannot be read, so the analysis cannot go on"
                raise DataError(Fault(str(about), rule, way_out=way_out)) from error
            if differing:
                key = differing[0]
                rule = f"holds an analysis with another {key}, {before.get(key)!r}"
                raise ConfigError(Fault(str(folder), rule, identity.get(key), "choose another folder with -o"))
            self._points = {(point.weight, point.level): point for point in read_sensitivity_csv(self.csv, kind)}
        else:
            write_atomically(about, json.dumps(identity, indent=1) + "\n")

    @property
    def points(self) -> tuple[Kind, ...]:
        """Weight by weight, in the order they were first measured, levels rising."""
        order = {name: place for place, name in enumerate(dict.fromkeys(name for name, _ in self._points))}
        return tuple(sorted(self._points.values(), key=lambda point: (order[point.weight], point.level)))

    def among(self, names: Sequence[str], levels: Sequence[float]) -> int:
        """How many points of these weights and levels there are."""
        return sum((name, level) in self._points for name in names for level in levels)

    def add(self, point: Kind) -> None:
        self._points[(point.weight, point.level)] = point
        if time.monotonic() - self._written >= _WRITE_EVERY_S:
            self.write()

    def write(self) -> None:
        if self._points:
            write_atomically(self.csv, sensitivity_csv(self.points))
        self._written = time.monotonic()


def check_starts_a_sweep(network: Network) -> None:
    """Raises ConfigError for a checkpoint that a sweep cannot take as its baseline."""
    if not network.content.get("history"):
        rule, way_out = "--write-space needs a checkpoint that raydistill trained", "train it with compress"
        raise ConfigError(Fault(str(network.path), rule, ABSENT, way_out))


def _on_menu(dataset: object, checkpoint: Path) -> str:
    """The dataset a checkpoint names; a factory of one's own is called only where the user names it."""
    if dataset not in datasets.NAMES:
        rule = f"{checkpoint} was trained on a dataset that is not on the menu"
        raise ConfigError(Fault("--dataset", rule, dataset, "name it yourself"))
    return str(dataset)


def _fits(samples: int, shape: Sequence[int], device: torch.device) -> bool:
    """Whether all batches take less than a quarter of the memory that is free on the device."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    return 4 * samples * math.prod(shape) < free / 4
