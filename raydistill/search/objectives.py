"""What a sweep optimises: named figures of a trial's latest epoch, each with an explicit direction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raydistill.errors import ConfigError, Fault, close_match
from raydistill.metrics import DIRECTIONS, MAX, OF_NETWORK, Metric
from raydistill.records import TrialRecord


@dataclass(frozen=True)
class Objective:
    """name: of a metric of the task, on the validation split (the test split is never optimised), or of a figure of the
    network. direction: "max" or "min"."""

    name: str
    direction: str

    @property
    def maximise(self) -> bool:
        return self.direction == MAX

    def value(self, record: TrialRecord) -> float:
        """NaN for a record without a trained epoch."""
        return math.nan if record.last is None else record.last.value(self.name)


def parse_objectives(mapping: object, where: str, metrics: Mapping[str, Metric]) -> tuple[Objective, ...]:
    """Read ``objectives``: ``{top1: max, sparsity: max}``, in the file's order. metrics: the task's.

    Raises:
        ConfigError: with all faults together.
    """
    if not isinstance(mapping, Mapping) or not mapping:
        rule = "must map at least one objective to max or min"
        raise ConfigError(Fault(where, rule, mapping, "as in {top1: max, sparsity: max}"))
    faults = []
    known = (*metrics, *OF_NETWORK)
    for name, direction in mapping.items():
        if name not in known:
            faults.append(Fault(f"{where}.{name}", "unknown objective", name, close_match(name, known)))
        if direction not in DIRECTIONS:
            faults.append(Fault(f"{where}.{name}", "unknown direction", direction, close_match(direction, DIRECTIONS)))
    if faults:
        raise ConfigError(*faults)
    return tuple(Objective(str(name), str(direction)) for name, direction in mapping.items())


def score_matrix(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> np.ndarray:
    """(records, objectives) float64, in the order given; NaN where a record has no trained epoch."""
    rows = [[objective.value(record) for objective in objectives] for record in records]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(objectives))
