"""The currency between rooms: frozen values of the standard library, JSON in and out.

Sparsity is a fraction of zeros in [0, 1] over *weights* (parameters with two or more dimensions; biases and
batch-norm scales do not count). top1 and top5 are fractions in [0, 1]. Epochs count from 0.
"""

from __future__ import annotations

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
    """One trained epoch. top1, top5 and loss are of the validation split; train_loss is the mean over the epoch.

    exits: of a network with early exits; see `Evaluation`. figures: in a sweep, of a trial's last epoch, what the
    network then costs (macs, parameters, ...; see `raydistill.training.footprint`).
    """

    epoch: int
    epochs: int
    train_loss: float
    loss: float
    top1: float
    top5: float
    learning_rate: float
    sparsity: float
    layer_sparsity: Mapping[str, float]
    images_per_second: float
    seconds: float
    timestamp_ms: int
    checkpoint: str | None = None
    exits: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EpochMetrics:
        return cls(**{f.name: data[f.name] for f in fields(cls) if f.name in data})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Evaluation:
    """One pass over one split, named in `split` ("validation" or "test").

    exits: of a network with early exits, ``exit0/top1`` of each exit on all images and, where thresholds are given,
    ``exit0/taken``, the fraction of images that leave by it; top1, top5 and loss are then of the exits taken.
    """

    split: str
    top1: float
    top5: float
    loss: float
    images: int
    exits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialRecord:
    """All that is known of one trial.

    values: what was searched, by key path. planned_sparsity: total sparsity that its schedule is bound for.
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
            known["test"] = Evaluation(**known["test"])
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
