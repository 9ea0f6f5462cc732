"""One trial of a finished sweep, by a rule: the knee, a name, the best of a figure under bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from raydistill.errors import ABSENT, ConfigError, Fault, close_match
from raydistill.metrics import OF_NETWORK, Metric, selecting, shown
from raydistill.records import BASELINE, TrialRecord
from raydistill.search.constraints import Constraint, against_dense, figure_value, violations
from raydistill.search.objectives import Objective
from raydistill.search.pareto import FrontRow

_MOST_NEAREST = 3


@dataclass(frozen=True)
class Rule:
    """trial: by its id, whatever its figures. best: of a figure of the network or a metric, among the trials that meet
    `where`; of several equal ones the better in the metric that selects. Neither: the knee."""

    trial: str | None = None
    best: str | None = None
    where: tuple[Constraint, ...] = ()

    def __str__(self) -> str:
        what = self.trial or (f"best {self.best}" if self.best else "" if self.where else "the knee")
        return " ".join(filter(None, (what, " and ".join(map(str, self.where)))))


def pick(
    rows: Sequence[FrontRow],
    rule: Rule,
    metrics: Mapping[str, Metric],
    objectives: Sequence[Objective],
    records: Mapping[str, TrialRecord],
) -> FrontRow:
    """The row of `rows` (see `front_rows`) that the rule means. records: all trials of the sweep, for errors.

    Raises:
        ConfigError: there is none; with the trials that come nearest.
    """
    if rule.trial is not None:
        return _by_name(rows, rule.trial, records)
    trials = [row for row in rows if row.record.trial_id != BASELINE and row.record.last is not None]
    if not trials:
        states = sorted({record.state for record in records.values() if record.trial_id != BASELINE})
        said = f"all of them are {' or '.join(states)}" if states else "there are none yet"
        raise ConfigError(Fault("pick", f"no trial has finished, {said}", ABSENT, "let the sweep go on with --resume"))
    if rule.best is None and not rule.where:
        return _knee(rows, trials, metrics)
    dense = next((row.record for row in rows if row.record.trial_id == BASELINE), None)
    met = [row for row in trials if not (row.violations or violations(row.record, rule.where, dense))]
    if not met:
        asked = " and ".join(map(str, rule.where)) or "the sweep's constraints"
        nearest = _nearest(trials, rule.where, dense)
        raise ConfigError(Fault("pick", f"no trial meets {asked}", ABSENT, f"nearest: {'; '.join(nearest)}"))
    name, better = _order(rule.best, metrics, objectives)
    first = selecting(metrics)
    selects = metrics[first]

    def key(row: FrontRow) -> tuple[float, float]:
        return better(_value(row, name)), -(1 if selects.maximise else -1) * _value(row, first)

    return min(met, key=key)


def _by_name(rows: Sequence[FrontRow], trial: str, records: Mapping[str, TrialRecord]) -> FrontRow:
    found = next((row for row in rows if row.record.trial_id == trial), None)
    if found is not None:
        return found
    if trial in records:
        record = records[trial]
        if record.confirms:
            rule, way_out = f"repeats {record.confirms} with another seed", f"name that: --trial {record.confirms}"
        else:
            rule, way_out = f"has not finished, it is {record.state}", "take another, or let it go on with --resume"
        raise ConfigError(Fault(f"--trial {trial}", rule, ABSENT, way_out))
    raise ConfigError(Fault("--trial", "there is no such trial", trial, close_match(trial, records)))


def _knee(rows: Sequence[FrontRow], trials: Sequence[FrontRow], metrics: Mapping[str, Metric]) -> FrontRow:
    knee = next((row for row in rows if row.knee), None)
    if knee is not None and knee.record.trial_id != BASELINE:
        return knee
    if knee is not None:
        front = [row.record.trial_id for row in trials if row.pareto]
        rule = "the knee is the dense network: nothing pruned is a better compromise"
        way_out = f"name a trial of the front: --trial {front[0]}" if front else "widen the search"
        raise ConfigError(Fault("pick", rule, ABSENT, way_out))
    nearest = [f"{row.record.trial_id}: {', '.join(row.violations)}" for row in trials if row.violations]
    rule = "no trial meets the sweep's constraints, so there is no knee"
    raise ConfigError(Fault("pick", rule, ABSENT, f"nearest: {'; '.join(nearest[:_MOST_NEAREST])}"))


def _nearest(trials: Sequence[FrontRow], where: Sequence[Constraint], dense: TrialRecord | None) -> list[str]:
    """The trials that miss by least, each with what it has in place of what was asked."""

    def miss(row: FrontRow) -> float:
        total = float(len(row.violations))
        for bound in (each.against(dense) for each in where):
            value = figure_value(bound.figure, row.record, dense)
            if bound.violation(value):
                total += math.inf if math.isnan(value) else abs(value - bound.bound) / max(abs(bound.bound), 1e-12)
        return total

    lines = []
    for row in sorted(trials, key=miss)[:_MOST_NEAREST]:
        broken = (*violations(row.record, where, dense), *row.violations)
        lines.append(f"{row.record.trial_id} ({', '.join(broken)})")
    return lines


def _order(
    best: str | None, metrics: Mapping[str, Metric], objectives: Sequence[Objective]
) -> tuple[str, Callable[[float], float]]:
    """The figure, and a function that is small where it is good."""
    if best is None:  # what the sweep optimises beside the metric that selects
        best = next((objective.name for objective in objectives if objective.name not in metrics), "sparsity")
    own = {objective.name: objective.metric for objective in objectives if objective.metric is not None}
    known = {**metrics, **OF_NETWORK, **own}
    if best not in known:
        raise ConfigError(Fault("--best", "no such figure", best, close_match(best, known)))
    sign = -1.0 if known[best].maximise else 1.0
    return best, lambda value: math.inf if math.isnan(value) else sign * value


def _value(row: FrontRow, name: str) -> float:
    if name in row.values:
        return float(row.values[name])
    return row.record.last.value(name) if row.record.last is not None else math.nan


def described(row: FrontRow, metrics: Mapping[str, Metric], dense: TrialRecord | None) -> list[str]:
    """Lines on what was picked: its metric on both splits, its sparsity, and what it lost against dense."""
    name = selecting(metrics)
    metric, record = metrics[name], row.record
    lines = []
    if record.last is not None:
        drop = next(iter(against_dense(metrics)))
        lost = figure_value(drop, record, dense)
        said = f"validation {name} {shown(metric, record.last.metrics[name])}"
        if not math.isnan(lost):
            said += f" ({drop} {shown(metric, lost)})"
        lines.append(said)
    if record.test is not None:
        lines.append(f"test {name} {shown(metric, record.test.metrics[name])}")
    if record.last is not None:
        lines.append(f"sparsity {shown(OF_NETWORK['sparsity'], record.last.sparsity)}")
    return lines
