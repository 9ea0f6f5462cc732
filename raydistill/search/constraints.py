"""Bounds on what a trial may be: ``top1_drop <= 0.005``, ``sparsity >= 0.8``, ``latency_ms < 3``, ``macs <= 0.5x``.

A finished trial that breaks one is infeasible: it is kept and shown, but is no member of the front. So is the baseline.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from raydistill.errors import ConfigError, Fault, close_match
from raydistill.metrics import OF_NETWORK, Metric
from raydistill.records import TrialRecord
from raydistill.search.figures import RELATIVE, own_figure

_DROP, _RISE = RELATIVE
_COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
FORM = re.compile(r"\s*([A-Za-z_][\w.:]*)\s*(<=|>=|<|>)\s*(\S+)\s*")
_EXAMPLE = "as in 'top1_drop <= 0.005', 'sparsity >= 0.8' or 'macs <= 0.5x'"
_TIMES = "x"
"""Behind a number that is a multiple of what the dense baseline has."""


@dataclass(frozen=True)
class Constraint:
    """figure: the name of a figure, or of a `against_dense`. comparison: one of <=, >=, <, >. path: of a figure of
    one's own, where it is. relative: whether the bound is a multiple of the dense baseline's figure."""

    figure: str
    comparison: str
    bound: float
    path: str = ""
    relative: bool = False

    def __str__(self) -> str:
        return f"{self.figure} {self.comparison} {self.bound:g}{_TIMES if self.relative else ''}"

    def against(self, baseline: TrialRecord | None) -> Constraint:
        """The same bound as a number; NaN where the dense baseline's figure is not known."""
        if not self.relative:
            return self
        return replace(self, bound=self.bound * figure_value(self.figure, baseline, baseline), relative=False)

    @property
    def of_network(self) -> bool:
        """On a figure that pruning decides, not the training."""
        return self.figure in OF_NETWORK

    def excess(self, value: float) -> float:
        """How far `value` lies on the wrong side, as a share of the bound; 0 where it keeps it."""
        if _COMPARISONS[self.comparison](value, self.bound):
            return 0.0
        return abs(value - self.bound) / max(abs(self.bound), 1e-12)

    def violation(self, value: float) -> str:
        """How `value` breaks the constraint, in words; "" where it does not. A figure that is not there breaks it."""
        if math.isnan(value):
            return f"{self.figure} is not known"
        if math.isnan(self.bound):
            return f"{self.figure} of the dense network is not known"
        if _COMPARISONS[self.comparison](value, self.bound):
            return ""
        return f"{self.figure} {value:.4g}, not {self.comparison} {self.bound:g}"


def parse_constraints(
    node: object, where: str, metrics: Mapping[str, Metric], own: Collection[str] = ()
) -> tuple[Constraint, ...]:
    """Read the ``constraints`` section. metrics: the task's. own: names of figures that are objectives already.

    Raises:
        ConfigError: with all faults together.
    """
    if not isinstance(node, list):
        raise ConfigError(Fault(where, "must be a list of bounds", node, _EXAMPLE))
    faults: list[Fault | str] = []
    found = []
    known = (*against_dense(metrics), *metrics, *OF_NETWORK, *own)
    for i, text in enumerate(node):
        at = f"{where}[{i}]"
        match = FORM.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            faults.append(Fault(at, "must be a figure, one of <= >= < >, and a number", text, _EXAMPLE))
            continue
        figure, comparison, number = match.groups()
        relative = number.endswith(_TIMES)
        try:
            bound = float(number.removesuffix(_TIMES))
        except ValueError:
            bound = math.nan
        path = figure if ":" in figure else ""
        if path:
            try:
                figure = own_figure(path, at, metrics).name
            except ConfigError as error:
                faults += error.faults
        elif figure not in known:
            faults.append(Fault(at, "unknown figure", figure, close_match(figure, known)))
        if not math.isfinite(bound):
            faults.append(Fault(at, "the bound must be a number", number, _EXAMPLE))
        elif relative and figure in (*against_dense(metrics), "sparsity"):
            rule = (
                f"{figure} is against the dense network already" if figure != "sparsity" else "a dense network has none"
            )
            faults.append(Fault(at, rule, number, f"leave the '{_TIMES}' out"))
        found.append(Constraint(figure, comparison, bound, path, relative))
    if faults:
        raise ConfigError(*faults)
    return tuple(found)


def against_dense(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """What a trial has lost against the dense baseline, by the name that constraints use: ``top1_drop`` of top1 (0.005
    is half a percentage point), ``loss_rise`` of what is better small. Both are positive where the trial is worse."""
    return {f"{name}{_DROP if metric.maximise else _RISE}": name for name, metric in metrics.items()}


def violations(record: TrialRecord, constraints: Sequence[Constraint], baseline: TrialRecord | None) -> tuple[str, ...]:
    """Every constraint that a trial breaks, in words; the baseline is held against itself."""
    said = (each.against(baseline).violation(figure_value(each.figure, record, baseline)) for each in constraints)
    return tuple(words for words in said if words)


def figure_value(figure: str, record: TrialRecord | None, baseline: TrialRecord | None) -> float:
    """A figure of a trial, or what it has lost against the baseline; NaN where it is not known."""
    if record is None or record.last is None:
        return math.nan
    for ending, sign in ((_DROP, 1.0), (_RISE, -1.0)):
        if figure.endswith(ending):
            name = figure.removesuffix(ending)
            dense = baseline.last.value(name) if baseline is not None and baseline.last is not None else math.nan
            return sign * (dense - record.last.value(name))
    return record.last.value(figure)
