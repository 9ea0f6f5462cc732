"""What of a front has a name: the members that one asks for first, and the figures of a sweep as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from raydistill.metrics import Metric
from raydistill.records import BASELINE, TrialRecord
from raydistill.search.constraints import against_dense, figure_value
from raydistill.search.objectives import Objective
from raydistill.search.pareto import FrontRow, hypervolume

KNEE = "knee"
LEVELS = (0.5, 0.8, 0.9)
"""Sparsities at which the least that was lost is told."""


def names(objectives: Sequence[Objective]) -> list[str]:
    """Those that members of a front may have: ``knee``, and for each objective ``max-top1``, ``min-macs``."""
    return [KNEE, *map(_best, objectives)]


def _best(objective: Objective) -> str:
    return f"{objective.direction}-{objective.name}"


def members(rows: Sequence[FrontRow], objectives: Sequence[Objective]) -> dict[str, str]:
    """By name (see `names`) the trial: the knee, and of each objective the best of the front.

    The dense baseline is none of them.
    """
    front = [row for row in rows if row.pareto and row.record.trial_id != BASELINE]
    knee = [row.record.trial_id for row in front if row.knee]
    found = {KNEE: knee[0]} if knee else {}
    for objective in objectives:
        sign = 1.0 if objective.maximise else -1.0
        known = [row for row in front if math.isfinite(row.values[objective.name])]
        if known:
            best = max(known, key=lambda row, name=objective.name, sign=sign: sign * row.values[name])  # type: ignore[misc]
            found[_best(objective)] = best.record.trial_id
    return found


def progress(
    rows: Sequence[FrontRow], objectives: Sequence[Objective], metrics: Mapping[str, Metric]
) -> dict[str, float]:
    """How far a sweep has come. rows: see `front_rows`.

    ``front_size``: members of the front, the dense network not counted. ``hypervolume``: dominated by the front, each
    objective divided by the dense network's figure (a fraction that is to be large by 1) and held against 0 where it is
    to be large, against twice the dense network's where it is to be small. ``top1_drop_at_50`` and the like: the least
    that a trial of such a sparsity or more has lost against dense in the metric that selects.
    """
    trials = [row for row in rows if row.record.trial_id != BASELINE]
    dense = next((row for row in rows if row.record.trial_id == BASELINE), None)
    found = {"front_size": float(sum(row.pareto for row in trials))}
    if dense is None or dense.record.last is None:
        return found
    scales = [_scale(objective, dense) for objective in objectives]
    points = [
        [row.values[objective.name] / scale for objective, scale in zip(objectives, scales, strict=True)]
        for row in rows
        if row.pareto
    ]
    if points and all(math.isfinite(scale) for scale in scales):
        corner = [0.0 if objective.maximise else 2.0 for objective in objectives]
        found["hypervolume"] = hypervolume(points, [objective.direction for objective in objectives], corner)
    lost = next(iter(against_dense(metrics)))
    for level in LEVELS:
        drops = [figure_value(lost, row.record, dense.record) for row in trials if _sparsity(row.record) >= level]
        known = [drop for drop in drops if math.isfinite(drop)]
        if known:
            found[f"{lost}_at_{100 * level:.0f}"] = min(known)
    return found


def _scale(objective: Objective, dense: FrontRow) -> float:
    value = abs(dense.values[objective.name])
    return 1.0 if objective.maximise and value <= 1.0 else value or 1.0


def _sparsity(record: TrialRecord) -> float:
    return record.last.sparsity if record.last is not None else 0.0
