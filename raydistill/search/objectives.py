"""What a sweep optimises: named figures of a trial's latest epoch, each with an explicit direction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raydistill.errors import ConfigError, Fault, close_match
from raydistill.records import TrialRecord

FOOTPRINT = ("macs", "parameters", "size_bytes", "compressed_size_bytes", "latency_ms")
"""What a trained trial costs: `raydistill.training.footprint` says how each is counted or measured."""

NAMES = ("top1", "top5", "loss", "sparsity", *FOOTPRINT)
"""top1, top5 and loss are the validation split's; the test split is never optimised."""

DIRECTIONS = ("max", "min")


@dataclass(frozen=True)
class Objective:
    """name: one of `NAMES`. direction: "max" or "min"."""

    name: str
    direction: str

    @property
    def maximise(self) -> bool:
        return self.direction == "max"

    def value(self, record: TrialRecord) -> float:
        """NaN for a record without a trained epoch."""
        if record.last is None:
            return math.nan
        if self.name in FOOTPRINT:
            return float(record.last.figures.get(self.name, math.nan))
        return float(getattr(record.last, self.name))


def parse_objectives(mapping: object, where: str) -> tuple[Objective, ...]:
    """Read ``objectives``: ``{top1: max, sparsity: max}``, in the file's order.

    Raises:
        ConfigError: with all faults together.
    """
    if not isinstance(mapping, Mapping) or not mapping:
        rule = "must map at least one objective to max or min"
        raise ConfigError(Fault(where, rule, mapping, "as in {top1: max, sparsity: max}"))
    faults = []
    for name, direction in mapping.items():
        if name not in NAMES:
            faults.append(Fault(f"{where}.{name}", "unknown objective", name, close_match(name, NAMES)))
        if direction not in DIRECTIONS:
            faults.append(Fault(f"{where}.{name}", "unknown direction", direction, close_match(direction, DIRECTIONS)))
    if faults:
        raise ConfigError(*faults)
    return tuple(Objective(str(name), str(direction)) for name, direction in mapping.items())


def score_matrix(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> np.ndarray:
    """(records, objectives) float64, in the order given; NaN where a record has no trained epoch."""
    rows = [[objective.value(record) for objective in objectives] for record in records]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(objectives))
