"""Bounds on what a trial may be: ``top1_drop <= 0.005``, ``sparsity >= 0.8``, ``latency_ms < 3``.

A finished trial that breaks one is infeasible: it is kept and shown, but is no member of the front. So is the baseline.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass

from raydistill.errors import ConfigError, Fault, close_match
from raydistill.records import TrialRecord
from raydistill.search.objectives import NAMES, Objective

TOP1_DROP = "top1_drop"
"""The dense baseline's validation top1 minus the trial's, a fraction: 0.005 is half a percentage point."""

_KNOWN = (TOP1_DROP, *NAMES)
_COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
_FORM = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|<|>)\s*(\S+)\s*")
_EXAMPLE = "as in 'top1_drop <= 0.005' or 'sparsity >= 0.8'"


@dataclass(frozen=True)
class Constraint:
    """figure: an objective's name, or `TOP1_DROP`. comparison: one of <=, >=, <, >."""

    figure: str
    comparison: str
    bound: float

    def violation(self, value: float) -> str:
        """How `value` breaks the constraint, in words; "" where it does not. A figure that is not there breaks it."""
        if math.isnan(value):
            return f"{self.figure} is not known"
        if _COMPARISONS[self.comparison](value, self.bound):
            return ""
        return f"{self.figure} {value:.4g}, not {self.comparison} {self.bound:g}"


def parse_constraints(node: object, where: str) -> tuple[Constraint, ...]:
    """Read the ``constraints`` section.

    Raises:
        ConfigError: with all faults together.
    """
    if not isinstance(node, list):
        raise ConfigError(Fault(where, "must be a list of bounds", node, _EXAMPLE))
    faults: list[Fault | str] = []
    found = []
    for i, text in enumerate(node):
        at = f"{where}[{i}]"
        match = _FORM.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            faults.append(Fault(at, "must be a figure, one of <= >= < >, and a number", text, _EXAMPLE))
            continue
        figure, comparison, number = match.groups()
        try:
            bound = float(number)
        except ValueError:
            bound = math.nan
        if figure not in _KNOWN:
            faults.append(Fault(at, "unknown figure", figure, close_match(figure, _KNOWN)))
        if not math.isfinite(bound):
            faults.append(Fault(at, "the bound must be a number", number, _EXAMPLE))
        found.append(Constraint(figure, comparison, bound))
    if faults:
        raise ConfigError(*faults)
    return tuple(found)


def violations(record: TrialRecord, constraints: Sequence[Constraint], baseline: TrialRecord | None) -> tuple[str, ...]:
    """Every constraint that a trial breaks, in words; the baseline is held against itself."""
    broken = []
    for constraint in constraints:
        if constraint.figure == TOP1_DROP:
            top1 = Objective("top1", "max")
            value = top1.value(baseline) - top1.value(record) if baseline is not None else math.nan
        else:
            value = Objective(constraint.figure, "max").value(record)
        if said := constraint.violation(value):
            broken.append(said)
    return tuple(broken)
