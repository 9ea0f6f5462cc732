"""The currency between rooms: frozen values of the standard library, JSON in and out.

Sparsity is a fraction of zeros in [0, 1] over *weights* (parameters with two or more dimensions; biases and
batch-norm scales do not count). Epochs count from 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

Scalar = bool | int | float | str

RUNNING, FINISHED, STOPPED, FAILED, INTERRUPTED = "running", "finished", "stopped", "failed", "interrupted"
PAUSED = "paused"
"""Waits at a rung, without resources, to be promoted."""

ENDED = frozenset({FINISHED, STOPPED, FAILED})
"""States a trial never leaves. `INTERRUPTED` is resumed by ``--resume``."""

BASELINE = "baseline"
"""The trial id of the dense baseline: the zero-sparsity point of the front."""


@dataclass(frozen=True)
class EpochMetrics:
    """One trained epoch. metrics: of the validation split, by the names and in the order of the run's task (see
    `raydistill.metrics`). train_loss: the mean over the epoch; None where a training loop of one's own does not say it.
    samples_per_second: trained.

    footprint: in a sweep, of a trial's last epoch, what the network then costs (macs, parameters, ...; see
    `raydistill.training.footprint`).
    """

    epoch: int
    epochs: int
    train_loss: float | None
    metrics: Mapping[str, float]
    learning_rate: float
    sparsity: float
    layer_sparsity: Mapping[str, float]
    samples_per_second: float
    seconds: float
    timestamp_ms: int
    checkpoint: str | None = None
    footprint: Mapping[str, float] = field(default_factory=dict)

    @property
    def scalars(self) -> dict[str, float]:
        """What an epoch is followed by: the task's metrics, train_loss where it is known, learning_rate, sparsity."""
        return {
            **self.metrics,
            **({} if self.train_loss is None else {"train_loss": self.train_loss}),
            "learning_rate": self.learning_rate,
            "sparsity": self.sparsity,
        }

    def value(self, name: str) -> float:
        """Any figure by its name; NaN where this epoch has none of it."""
        return float({**self.footprint, **self.scalars}.get(name, math.nan))

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> EpochMetrics:
        return cls(**_known(cls, data))

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """One pass over one split, named in `split` ("validation" or "test"). metrics: as `EpochMetrics`'."""

    split: str
    metrics: Mapping[str, float]
    samples: int

    @property
    def named_by_split(self) -> dict[str, float]:
        """``test_top1`` and the like, to stand beside those of another split."""
        return {f"{self.split}_{name}": value for name, value in self.metrics.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Evaluation:
        return cls(**_known(cls, data))

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def _known(kind: type[EpochMetrics | Evaluation], data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record; of one that was written when images were all there was, by their present names."""
    if "metrics" not in data:
        metrics = {name: data[name] for name in ("top1", "top5", "loss")} | dict(data.get("exits", {}))
        former = {"images": "samples", "images_per_second": "samples_per_second", "figures": "footprint"}
        data = {former.get(name, name): value for name, value in data.items()} | {"metrics": metrics}
    return {f.name: data[f.name] for f in fields(kind) if f.name in data}


@dataclass(frozen=True)
class TrialRecord:
    """All that is known of one trial.

    values: what was searched, by key path. planned_sparsity: total sparsity that its schedule is bound for. planned:
    other figures of the network that it is bound for, as ``planned_macs``, in a sweep that optimises or bounds one.
    reason: why it ended, in words. last: its latest epoch. test: filled in for front members only.
    confirms: the trial that this run repeats with another seed; "" for a trial of the search.
    """

    trial_id: str
    values: Mapping[str, Scalar]
    state: str
    arch: str
    dataset: str
    seed: int
    reason: str = ""
    planned_sparsity: float = 0.0
    planned: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    last: EpochMetrics | None = None
    checkpoint: str | None = None
    started_ms: int = 0
    ended_ms: int = 0
    test: Evaluation | None = None
    schedule_text: str = ""
    confirms: str = ""
    extra: Mapping[str, Scalar] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialRecord:
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        if known.get("last") is not None:
            known["last"] = EpochMetrics.from_json(known["last"])
        if known.get("test") is not None:
            known["test"] = Evaluation.from_json(known["test"])
        return cls(**known)

    def to_json(self) -> dict[str, object]:
        return asdict(self)
