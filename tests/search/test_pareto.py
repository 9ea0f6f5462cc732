from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from raydistill.records import BASELINE, FAILED, FINISHED, INTERRUPTED, RUNNING, STOPPED
from raydistill.search import Objective, front_rows, hypervolume, knee, pareto_rank
from raydistill.search.constraints import Constraint
from raydistill.search.pareto import mean_and_std

MAX2 = ["max", "max"]
OBJECTIVES = (Objective("top1", "max"), Objective("sparsity", "max"))


def better(a: list[float], b: list[float], directions: list[str]) -> bool:
    """a dominates b: no worse anywhere, better somewhere."""
    pairs = [(x, y) if d == "max" else (-x, -y) for x, y, d in zip(a, b, directions, strict=True)]
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def ranks_by_peeling(points: list[list[float]], directions: list[str]) -> list[int]:
    ranks = [-1] * len(points)
    left = [i for i, point in enumerate(points) if all(math.isfinite(x) for x in point)]
    level = 0
    while left:
        front = [i for i in left if not any(better(points[j], points[i], directions) for j in left)]
        for i in front:
            ranks[i] = level
        left = [i for i in left if i not in front]
        level += 1
    return ranks


@st.composite
def clouds(draw: st.DrawFn) -> tuple[list[list[float]], list[str]]:
    """Few distinct values, so that ties and duplicates are common; some NaN and infinities."""
    m = draw(st.integers(1, 4))
    cell = st.one_of(
        st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, math.nan, math.inf, -math.inf]), st.floats(-2, 2, width=32)
    )
    points = draw(hnp.arrays(np.float64, st.tuples(st.integers(0, 14), st.just(m)), elements=cell))
    return points.tolist(), draw(st.lists(st.sampled_from(["max", "min"]), min_size=m, max_size=m))


@pytest.mark.slow
@settings(deadline=None)  # machines are slow at times
@given(clouds())
def test_ranks_equal_brute_force(cloud: tuple[list[list[float]], list[str]]) -> None:
    points, directions = cloud
    matrix = np.array(points, dtype=np.float64).reshape(len(points), len(directions))
    assert pareto_rank(matrix, directions).tolist() == ranks_by_peeling(points, directions)


@pytest.mark.slow
@settings(deadline=None)  # machines are slow at times
@given(clouds(), st.randoms())
def test_knee_is_on_the_front_and_the_same_point_in_any_order(cloud, random) -> None:
    points, directions = cloud
    matrix = np.array(points, dtype=np.float64).reshape(len(points), len(directions))
    chosen = knee(matrix, directions)
    ranks = ranks_by_peeling(points, directions)
    if 0 not in ranks:
        assert chosen is None
        return
    assert ranks[chosen] == 0
    order = list(range(len(points)))
    random.shuffle(order)
    shuffled = matrix[order]
    np.testing.assert_array_equal(shuffled[knee(shuffled, directions)], matrix[chosen])


def test_duplicates_of_a_front_point_all_stay() -> None:
    assert pareto_rank([[1, 0], [1, 0], [0, 1], [0, 0]], MAX2).tolist() == [0, 0, 0, 1]


def test_rows_with_nan_or_infinity_are_no_points() -> None:
    assert pareto_rank([[math.nan, 9], [9, math.inf], [0, 0]], MAX2).tolist() == [-1, -1, 0]
    assert pareto_rank([[math.nan, 1]], MAX2).tolist() == [-1]


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="shape"):
        pareto_rank([[1, 2, 3]], MAX2)
    with pytest.raises(ValueError, match="directions"):
        pareto_rank([[1, 2]], ["max", "up"])


@pytest.mark.parametrize(
    ("points", "directions", "expected"),
    [
        ([[0.70, 0.0], [0.69, 0.8], [0.50, 0.95]], MAX2, 1),  # the bulge
        ([[0.70, 0.0], [0.60, 0.5], [0.50, 0.95]], MAX2, 1),  # near the chord, but above it
        ([[0.30, 0.0], [0.31, 0.8], [0.50, 0.95]], ["min", "max"], 1),
        ([[0.7, 0.0], [0.5, 0.9]], MAX2, 0),  # two: both lie on the line; the first objective decides
        ([[0.5, 0.9], [0.7, 0.0]], MAX2, 1),
        ([[0.4, 0.4]], MAX2, 0),
        ([[0.4, 0.4], [0.4, 0.4]], MAX2, 0),
        ([[math.nan, 1.0], [0.4, 0.4]], MAX2, 1),
        ([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]], MAX2, 1),  # a straight front: the balanced one
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]], ["max"] * 3, 3),
        ([[0.1], [0.9], [0.5]], ["max"], 1),
        ([[0.1], [0.9], [0.5]], ["min"], 0),
        ([[0.7, 0.1, 5], [0.6, 0.9, 5], [0.2, 1.0, 5]], ["max"] * 3, 1),  # a constant objective changes nothing
    ],
)
def test_knee_by_hand(points: list, directions: list[str], expected: int) -> None:
    assert knee(points, directions) == expected


def test_knee_without_a_front() -> None:
    assert knee(np.empty((0, 2)), MAX2) is None
    assert knee([[math.nan, 1]], MAX2) is None


def test_knee_is_farthest_from_the_chord() -> None:
    """Second route: the distance of each front point from the line through the two extremes, in scaled units."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        x = np.sort(rng.uniform(size=12))
        points = np.stack([x * 100, np.sqrt(1 - x**2) + 3], axis=1)
        unit = (points - points.min(0)) / np.ptp(points, axis=0)
        a, b = unit[0], unit[-1]
        distance = [float((b - a)[0] * (p - a)[1] - (b - a)[1] * (p - a)[0]) / float(np.hypot(*(b - a))) for p in unit]
        assert knee(points, MAX2) == int(np.argmax(distance))


def test_knee_does_not_depend_on_units() -> None:
    points = np.array([[0.70, 0.0], [0.69, 0.4], [0.65, 0.8], [0.50, 0.95]])
    assert knee(points, MAX2) == knee(points * [100, 1000] + 7, MAX2) == 2


@pytest.mark.slow
@settings(deadline=None)  # machines are slow at times
@given(st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)), max_size=12))
def test_hypervolume_counts_unit_cells(points: list[tuple[int, int]]) -> None:
    cells = sum(any(x > i and y > j for x, y in points) for i in range(10) for j in range(10))
    matrix = np.array(points, dtype=float).reshape(-1, 2)
    assert hypervolume(matrix, MAX2, [0, 0]) == pytest.approx(cells)
    assert hypervolume(10 - matrix, ["min", "min"], [10, 10]) == pytest.approx(cells)


def test_hypervolume_leaves_out_nan_and_points_behind_the_reference() -> None:
    assert hypervolume([[math.nan, 5], [2, 3], [-1, 9]], MAX2, [0, 0]) == pytest.approx(6)
    assert hypervolume([[math.nan, 5]], MAX2, [0, 0]) == 0
    assert hypervolume([[3], [5]], ["max"], [1]) == pytest.approx(4)
    with pytest.raises(ValueError, match="reference"):
        hypervolume([[1, 2]], MAX2, [0])


def test_front_rows_take_finished_trials_and_the_baseline_only(record) -> None:
    records = [
        record("t0", 0.70, 0.50),
        record("t1", 0.99, 0.99, STOPPED),
        record("t2", 0.99, 0.99, FAILED),
        record("t3", 0.99, 0.99, RUNNING),
        record("t4", 0.99, 0.99, INTERRUPTED),
        record("t5", 0.60, 0.90),
        record("t6", 0.65, 0.40),
        record(BASELINE, 0.71, 0.0, FINISHED),
        dataclasses.replace(record("t7", 0.0, 0.0), last=None),
        record("t8", 0.60, 0.30),
    ]
    rows = front_rows(records, OBJECTIVES)
    assert [(r.record.trial_id, r.rank, r.pareto) for r in rows] == [
        (BASELINE, 0, True), ("t0", 0, True), ("t5", 0, True), ("t6", 1, False), ("t8", 2, False), ("t7", -1, False),
    ]  # fmt: skip
    assert [r.record.trial_id for r in rows if r.knee] == ["t0"]
    assert rows[1].values == {"top1": 0.70, "sparsity": 0.50}


def test_front_rows_of_nothing() -> None:
    assert front_rows([], OBJECTIVES) == []


def test_mean_and_deviation_of_what_is_known() -> None:
    assert mean_and_std([1.0, None, 3.0]) == (2.0, pytest.approx(math.sqrt(2)))
    assert mean_and_std([None, 4.0]) == (4.0, None)
    assert mean_and_std([None]) == mean_and_std([]) == (None, None)


def test_one_column_and_a_negative_zero() -> None:
    assert pareto_rank([[0.0], [-0.0], [1.0], [math.nan], [-1.0]], ["max"]).tolist() == [1, 1, 0, -1, 2]
    assert pareto_rank([[0.0], [-0.0], [1.0], [math.nan], [-1.0]], ["min"]).tolist() == [1, 1, 2, -1, 0]


def test_of_equal_sums_the_most_balanced_is_the_knee_and_a_constant_does_not_count() -> None:
    # of three objectives: sums of 1.5 in shares of the range; the third has the largest worst
    points = [[1.0, 0.0, 0.5, 7], [0.0, 1.0, 0.5, 7], [0.4, 0.5, 0.6, 7], [0.5, 0.0, 1.0, 7], [0.3, 1.0, 0.0, 7]]
    assert knee(points, ["max"] * 4) == 2
    assert knee(np.array(points) * [1, -1, -1, 1], ["max", "min", "min", "min"]) == 2


def test_a_repeated_trial_stands_with_its_means_and_one_that_breaks_a_constraint_has_no_rank(record) -> None:
    again = [dataclasses.replace(record(f"r{i}", 0.8, 0.8), confirms="t0") for i in range(2)]
    lone = dataclasses.replace(record("r9", 0.9, 0.9), confirms="t9")  # its trial is not known
    unfinished = dataclasses.replace(record("r8", 0.1, 0.1, RUNNING), confirms="t0")
    records = [record(BASELINE, 0.9, 0.0), record("t0", 0.5, 0.8), record("t1", 0.7, 0.8), *again, lone, unfinished]
    rows = {row.record.trial_id: row for row in front_rows(records, OBJECTIVES)}
    assert set(rows) == {BASELINE, "t0", "t1"}
    assert rows["t0"].values == {"top1": 0.7, "sparsity": 0.8}  # to the last bit
    assert (rows["t0"].rank, rows["t1"].rank) == (0, 0)
    assert [run.trial_id for run in rows["t0"].runs] == ["t0", "r0", "r1"]
    assert rows["t1"].runs == (rows["t1"].record,)
    bound = (Constraint("top1_drop", "<=", 0.3),)
    worse = [*records, record("t2", 0.5, 0.95)]
    found = front_rows(worse, OBJECTIVES, bound)
    assert [(row.record.trial_id, row.rank) for row in found] == [(BASELINE, 0), ("t1", 0), ("t0", -1), ("t2", -1)]
    broken = next(row for row in found if row.record.trial_id == "t2")
    assert (broken.pareto, broken.knee, broken.values) == (False, False, {"top1": 0.5, "sparsity": 0.95})
    assert broken.violations
    assert "top1_drop" in broken.violations[0]


def test_directions_are_needed() -> None:
    with pytest.raises(ValueError, match="at least one"):
        pareto_rank(np.empty((0, 0)), [])
    with pytest.raises(ValueError, match="shape"):
        pareto_rank([1.0, 2.0], MAX2)
    assert pareto_rank(np.empty((0, 2)), MAX2).tolist() == []
