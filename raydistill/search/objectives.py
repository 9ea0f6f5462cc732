"""What a sweep optimises: named figures of a trial's latest epoch, each with an explicit direction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.metrics import DIRECTIONS, MAX, OF_NETWORK, Metric, selecting
from raydistill.records import TrialRecord
from raydistill.search.figures import own_figure


@dataclass(frozen=True)
class Objective:
    """name: of a metric of the task, on the validation split (the test split is never optimised), or of a figure of the
    network. direction: "max" or "min". path, metric: of a figure of one's own, where it is and what it means."""

    name: str
    direction: str
    path: str = ""
    metric: Metric | None = None

    @property
    def maximise(self) -> bool:
        return self.direction == MAX

    @property
    def of_network(self) -> bool:
        """Known when the last epoch is trained, of what is no metric of the task."""
        return bool(self.path) or self.name in OF_NETWORK

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
    faults: list[Fault | str] = []
    found: list[Objective] = []
    known = (*metrics, *OF_NETWORK)
    for name, direction in mapping.items():
        if isinstance(name, str) and ":" in name:
            try:
                figure = own_figure(name, f"{where}.{name}", metrics)
                found.append(Objective(figure.name, str(direction), name, figure.metric))
            except ConfigError as error:
                faults += error.faults
        elif name in known:
            found.append(Objective(str(name), str(direction)))
        else:
            faults.append(Fault(f"{where}.{name}", "unknown objective", name, close_match(name, known)))
        if direction not in DIRECTIONS:
            faults.append(Fault(f"{where}.{name}", "unknown direction", direction, close_match(direction, DIRECTIONS)))
    names = [objective.name for objective in found]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        faults.append(Fault(where, f"two figures are named '{name}'", ABSENT, "give one of them another name"))
    if faults:
        raise ConfigError(*faults)
    return tuple(found)


def usual_objectives(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """What a sweep optimises that does not say it: the metric that selects, against sparsity."""
    first = selecting(metrics)
    return {first: metrics[first].direction, "sparsity": MAX}


def score_matrix(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> np.ndarray:
    """(records, objectives) float64, in the order given; NaN where a record has no trained epoch."""
    rows = [[objective.value(record) for objective in objectives] for record in records]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(objectives))
