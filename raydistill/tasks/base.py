"""What a run trains, as one object: its data in batches, how the network is called, the loss, the metrics.

A task travels to other machines with its data: it can be pickled, and nothing writes to it. A *feed* gives one split in
batches, on the device; a *batch* is whatever the task's own methods take. Ranks are processes that train one network
together: each gets a share of every batch's rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from raydistill import models
from raydistill.compression.ranks import Ranks
from raydistill.datasets.config import DatasetConfig
from raydistill.metrics import LOSS, Metric
from raydistill.parts import Pixels
from raydistill.tasks.fingerprint import fingerprint

TRAIN, VALIDATION, TEST = "train", "validation", "test"

_UNSAID = Pixels()
_REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}

Batch = Any
Network = Callable[..., Any]
"""A network, or what stands for it in training: called with the inputs of a batch, gives its output."""


@dataclass(frozen=True)
class TaskConfig:
    """name: one of the menu, or ``pkg.mod:Class``. args: what it is made with beside the dataset."""

    name: str = "classification"
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Weights:
    """The weights that a network begins with. content: of the checkpoint they are from (see
    `raydistill.training.distiller_checkpoint.read_any`); None where they are published ones or fresh.

    where: the file, for errors. arch, arguments: as the caller calls the network. pixels: what the user says of them,
    where the file says nothing.
    """

    arch: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    content: Mapping[str, Any] | None = None
    where: str = "model.arch"
    pixels: Pixels = _UNSAID

    @classmethod
    def of_checkpoint(cls, content: Mapping[str, Any], where: str, arch: str | None = None) -> Weights:
        """Those of a checkpoint. arch: what the caller calls its network; None: what the file says."""
        run = content["run"]
        return cls(arch or str(run["arch"]), run["model_args"], content, where)


@dataclass(frozen=True)
class Loading:
    """How a run wants its batches. batch_size: of all ranks together. fraction: in (0, 1], of a split that is used.

    seed: of the order of the train split. precision: ``fp32``, ``bf16`` or ``fp16``, of evaluation.
    """

    device: torch.device
    batch_size: int
    seed: int = 0
    fraction: float = 1.0
    precision: str = "fp32"
    ranks: Ranks = field(default_factory=Ranks)

    def autocast(self) -> AbstractContextManager[object]:
        return autocast(self.precision, self.device)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context a forward pass runs in: bf16 and fp16 autocast keep the weights in fp32."""
    if precision in _REDUCED:
        return torch.autocast(device.type, dtype=_REDUCED[precision])
    return nullcontext()


class Feed(Protocol):
    """One split in batches. samples: of this rank in one epoch; of the train split, of all ranks. batches: an epoch."""

    @property
    def samples(self) -> int: ...
    @property
    def batches(self) -> int: ...
    def rows(self, index: int) -> tuple[int, int]:
        """(this rank's, all ranks') rows of a batch; 0 where it was given a row that is another's."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """All batches of one epoch (from 0); only the train split differs from epoch to epoch."""


class TaskShape(Protocol):
    """What a plan needs to know of a task, and what may be known before its data are read."""

    def network(self, arch: str, arguments: Mapping[str, object], where: str = ..., fetch: bool = ...) -> nn.Module: ...
    def example_input(self, rows: int = ...) -> tuple[Any, ...]: ...


class Task(ABC):
    """A user's own is a class derived from this one, named ``pkg.mod:Class`` in a sweep file.

    metrics: of a split, by name; the first selects, and ``loss`` is one of them. name: of its data, in records.
    warning, note: what the user has to be told, or "". used_fallback: these are not the data that were asked for.
    """

    metrics: Mapping[str, Metric]
    name: str = "data"
    warning: str = ""
    note: str = ""
    used_fallback: bool = False

    @classmethod
    def load(cls, data: DatasetConfig, weights: Weights, **args: Any) -> Task:
        """The task with its data. data: the dataset that the user named; weights: those that the run begins with.

        Raises:
            ConfigError, DataError: the arguments or the data cannot be used.
        """
        return cls(**args)

    @classmethod  # noqa: B027 - none has to
    def check(cls, data: DatasetConfig) -> None:
        """Everything that can be said of the user's dataset before it is read.

        Raises:
            ConfigError: all faults together.
        """

    @classmethod
    def foreseen(cls, data: DatasetConfig, **args: object) -> TaskShape | None:
        """What is known before data are read, for `load` of the same arguments; None where that is nothing."""
        return None

    @classmethod
    def judged_by(cls, **args: object) -> Mapping[str, Metric]:
        """The metrics before data are read, where they depend on the arguments of `load`."""
        return cls.metrics

    @abstractmethod
    def feed(self, split: str, loading: Loading) -> Feed:
        """One split: ``train``, ``validation`` or ``test``; `raydistill.tasks.feeds` has ready ones."""

    @abstractmethod
    def loss(self, network: Network, batch: Batch) -> Tensor:
        """The mean over the batch, to be differentiated; a policy may add to it."""

    @abstractmethod
    def example_input(self, rows: int = 1) -> tuple[Any, ...]:
        """Positional inputs of the network, of so many samples; the values do not matter."""

    def example_batch(self, rows: int, device: torch.device) -> Batch | None:
        """One of the train split, where a network in train mode takes more than `example_input`; else None."""
        return None

    @torch.no_grad()
    def evaluate(self, network: nn.Module, feed: Feed, loading: Loading) -> Mapping[str, float]:
        """The metrics over a whole feed, of all ranks together and the same on each. In eval mode; the network's own
        mode is put back. This one is enough for a task whose only metric is its loss.
        """
        training = network.training
        network.eval()
        total, rows = 0.0, 0
        try:
            for index, batch in enumerate(feed.epoch(0)):
                own, _ = feed.rows(index)
                with loading.autocast():
                    loss = self.loss(network, batch)
                total, rows = total + float(loss) * own, rows + own
        finally:
            network.train(training)
        parts = loading.ranks.gather((total, rows))
        return {LOSS: sum(part[0] for part in parts) / max(1, sum(part[1] for part in parts))}

    def judge(self, network: nn.Module, feed: Feed, loading: Loading) -> Mapping[str, float]:
        """Those of `evaluate` that need no more than the network's outputs, as an exported one has them."""
        return self.evaluate(network, feed, loading)

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        """What of a batch the network is called with: all but the last of its parts, which is what it should say."""
        parts: Sequence[Any] = batch
        return tuple(parts[:-1])

    def network(
        self, arch: str, arguments: Mapping[str, object], where: str = "model.arch", fetch: bool = True
    ) -> nn.Module:
        """A fresh network for this task; see `models.create`."""
        return models.create(arch, None, arguments, where, fetch)

    def wanted_by(self, weights: Weights, data: DatasetConfig | None = None) -> Task:
        """The same with its data prepared as these weights want them, unless the user says otherwise in `data`."""
        return self

    def as_trained(self, run: Mapping[str, object]) -> Task:
        """The same with the arguments that a checkpoint's run had (see `identity`), where this one says none."""
        return self

    def check_knows(self, content: Mapping[str, object], where: str) -> None:  # noqa: B027 - none has to
        """Raises CheckpointError where a checkpoint is of another task or of other data (classes, vocabulary)."""

    def teach(self, teacher: nn.Module, weights: Weights) -> nn.Module:
        """A teacher as it can be handed this task's batches."""
        return teacher

    def described(self) -> Mapping[str, Any]:
        """What a checkpoint says of it: plain values and tensors, by keys of its own."""
        return {}

    def identity(self, data: DatasetConfig) -> Mapping[str, Any]:
        """What the weights depend on, as plain values: a run goes on only with the same."""
        return {}

    @property
    def nbytes(self) -> int:
        """About how many bytes its data take in memory."""
        return 0

    def fingerprint(self) -> str:
        """A hash of its data and arguments; a sweep goes on only with the same."""
        return fingerprint(vars(self))
