"""The Pareto front: ranks, the knee, the hypervolume.

`points` is (n, m) float, one row a trial; `directions` is one of "max" and "min" a column. Rows with a NaN or an
infinity are no points: rank -1, never on the front, never the knee.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np
from numpy.typing import ArrayLike

from raydistill.records import BASELINE, FINISHED, TrialRecord
from raydistill.search.constraints import Constraint, violations
from raydistill.search.objectives import Objective, score_matrix

NO_RANK = -1


def pareto_rank(points: ArrayLike, directions: Sequence[str]) -> np.ndarray:
    """(n,) int: 0 is the front, 1 the front of what remains, and so on; duplicates share their rank; -1 for NaN rows.

    Non-dominated sorting after Deb et al. 2002 (NSGA-II), by moocore.
    """
    matrix, maximise = _check(points, directions)
    ranks: np.ndarray = np.full(len(matrix), NO_RANK, dtype=np.int64)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.any():
        return ranks
    if matrix.shape[1] == 1:  # moocore 0.3 ranks a single column wrongly; there a rank is the place among the values
        column = matrix[finite, 0] + 0.0  # -0.0 is 0.0
        ranks[finite] = np.unique(-column if maximise[0] else column, return_inverse=True)[1]
    else:
        ranks[finite] = moocore.pareto_rank(matrix[finite], maximise=maximise)
    return ranks


def knee(points: ArrayLike, directions: Sequence[str]) -> int | None:
    """Index of the front's knee; None without a front.

    Das 1999, "On characterizing the 'knee' of the Pareto curve based on Normal-Boundary Intersection" (Structural
    Optimization 18): the point that bulges farthest from the hyperplane through the best points of each objective.
    With every objective scaled to [0, 1] over the front, 1 the best, and a normal of ones, that is the largest sum.
    An objective that is constant over the front counts for nothing.

    Ties go to the most balanced point (largest worst objective), then to the better in the first objective, in the
    second, ..., then to the lower index. So of two points the better in the first objective is taken.
    """
    matrix, maximise = _check(points, directions)
    front = np.flatnonzero(pareto_rank(matrix, directions) == 0)
    if not len(front):
        return None
    scores = np.where(maximise, matrix[front], -matrix[front])
    low, high = scores.min(axis=0), scores.max(axis=0)
    varies = high > low
    span = np.where(varies, high - low, 1.0)
    unit = np.where(varies, (scores - low) / span, 0.0).round(12)  # rounding: equal sums must tie whatever the scale
    worst = np.where(varies, unit, 1.0).min(axis=1)
    keys = [unit.sum(axis=1).round(12), worst, *unit.T]
    order = np.lexsort([front, *(-key for key in reversed(keys))])
    return int(front[order[0]])


def hypervolume(points: ArrayLike, directions: Sequence[str], reference: Sequence[float]) -> float:
    """Volume dominated by `points` and bounded by `reference`; points not better than it add nothing."""
    matrix, maximise = _check(points, directions)
    matrix = matrix[np.isfinite(matrix).all(axis=1)]
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != (len(maximise),):
        raise ValueError(f"reference needs {len(maximise)} numbers, got {corner.shape}")
    if not len(matrix):
        return 0.0
    return float(moocore.hypervolume(matrix, ref=corner, maximise=maximise))


@dataclass(frozen=True)
class FrontRow:
    """One eligible trial. values: its objectives by name. pareto: on the front (rank 0). knee: the front's knee.

    repeats: its finished runs with other seeds; values are then means over all of them (see `mean_and_std`).
    violations: the constraints it breaks, in words; with any it has no rank.
    """

    record: TrialRecord
    values: Mapping[str, float]
    rank: int
    pareto: bool
    knee: bool
    repeats: tuple[TrialRecord, ...] = ()
    violations: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[TrialRecord, ...]:
        """The trial and its repeats."""
        return (self.record, *self.repeats)


def mean_and_std(figures: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (n - 1); no mean without figures, no deviation of one."""
    known = [figure for figure in figures if figure is not None]
    return (
        statistics.mean(known) if known else None,
        statistics.stdev(known) if len(known) > 1 else None,
    )


def front_rows(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], constraints: Sequence[Constraint] = ()
) -> list[FrontRow]:
    """Rank the finished trials and the baseline; stopped, failed and unfinished trials are not eligible.

    A trial that was trained again with other seeds stands with its means. Sorted: the front first, sparsity ascending;
    then by rank and sparsity; those without figures last.
    """
    finished = [record for record in records if record.state == FINISHED or record.trial_id == BASELINE]
    eligible = [record for record in finished if not record.confirms]
    repeats: dict[str, list[TrialRecord]] = {}
    for record in finished:
        if record.confirms:
            repeats.setdefault(record.confirms, []).append(record)
    directions = [objective.direction for objective in objectives]
    points = score_matrix(eligible, objectives)
    for place, record in enumerate(eligible):
        if record.trial_id in repeats:
            # rounded, so that the mean of three times 0.8 is 0.8: one bit more would be a better sparsity
            points[place] = score_matrix([record, *repeats[record.trial_id]], objectives).mean(axis=0).round(12)
    dense = next((record for record in eligible if record.trial_id == BASELINE), None)
    broken = [violations(record, constraints, dense) if constraints else () for record in eligible]
    feasible = np.where(np.array([bool(said) for said in broken], dtype=bool)[:, None], math.nan, points)
    names = [objective.name for objective in objectives]
    ranks = pareto_rank(feasible, directions)
    knee_index = knee(feasible, directions)
    sparsity = np.array([record.last.sparsity if record.last is not None else 0.0 for record in eligible])
    ids = np.array([record.trial_id for record in eligible], dtype=np.str_)
    values, places = points.tolist(), ranks.tolist()
    return [
        FrontRow(
            eligible[i],
            dict(zip(names, values[i], strict=True)),
            places[i],
            places[i] == 0,
            i == knee_index,
            tuple(repeats.get(eligible[i].trial_id, ())),
            broken[i],
        )
        for i in np.lexsort((ids, sparsity, ranks, ranks == NO_RANK)).tolist()
    ]


def _check(points: ArrayLike, directions: Sequence[str]) -> tuple[np.ndarray, list[bool]]:
    matrix = np.asarray(points, dtype=np.float64)
    if not directions or any(direction not in ("max", "min") for direction in directions):
        raise ValueError(f"directions must be 'max' or 'min', at least one, got {list(directions)}")
    if matrix.ndim != 2 or matrix.shape[1] != len(directions):
        raise ValueError(f"points must have shape (n, {len(directions)}), got {matrix.shape}")
    return matrix, [direction == "max" for direction in directions]
