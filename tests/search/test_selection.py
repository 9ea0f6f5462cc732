"""Which points count as best: cases worked out by hand, and what must hold of any cloud."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.search.selection import SPREADS, best, ranks

FRONT = np.array([[0.0, 10.0], [1.0, 9.0], [6.0, 7.0], [9.0, 3.0], [10.0, 0.0]])
"""One rank. In shares of the range: (0, 1), (.1, .9), (.6, .7), (.9, .3), (1, 0)."""


def taken(points: object, keep: int, spread: str = "epsilon_net") -> set[int]:
    return set(np.flatnonzero(best(np.array(points, dtype=float), keep, spread)).tolist())


def test_the_best_in_all_is_taken_and_ranks_are_taken_whole() -> None:
    # 2 dominates all; without it 0 and 3 do not dominate each other, and both dominate 1
    points = [[1, 3], [1, 1], [4, 4], [3, 1]]
    for spread in SPREADS:
        assert taken(points, 1, spread) == {2}
        assert taken(points, 3, spread) == {0, 2, 3}
        assert taken(points, 4, spread) == taken(points, 9, spread) == {0, 1, 2, 3}


@pytest.mark.parametrize(("keep", "expected"), [(1, {2}), (2, {2, 4}), (3, {0, 2, 4}), (4, {0, 2, 3, 4})])
def test_epsilon_net_by_hand(keep: int, expected: set[int]) -> None:
    # Largest sum: 2 (1.3). Distances from it: 0.67, 0.54, -, 0.5, 0.81 -> 4. Then to the nearer of 2 and 4:
    # 0.67, 0.54, -, 0.32, - -> 0. Then 1 is 0.14 from 0, and 3 is 0.32 from 4 -> 3.
    assert taken(FRONT, keep, "epsilon_net") == expected


@pytest.mark.parametrize(("keep", "expected"), [(1, {0}), (2, {0, 4}), (3, {0, 2, 4}), (4, {0, 2, 3, 4})])
def test_crowding_by_hand(keep: int, expected: set[int]) -> None:
    # The extremes 0 and 4 first. Then both neighbours' distance: 1: .6 + .3 = 0.9; 2: .8 + .6 = 1.4; 3: .4 + .7 = 1.1.
    assert taken(FRONT, keep, "crowding") == expected


@pytest.mark.parametrize(("keep", "expected"), [(1, {2}), (2, {2, 3}), (3, {1, 2, 3}), (4, {0, 1, 2, 3})])
def test_hypervolume_by_hand(keep: int, expected: set[int]) -> None:
    # What each alone covers, down to -0.1: 0: .1 * .1 = .01, 1: .1 * .2 = .02, 2: .5 * .4 = .2, 3: .3 * .3 = .09,
    # 4: .1 * .1 = .01. Of 0 and 4 the later goes; 3 now has .3 * .4 = .12, so 0 goes; 1 now has .2 * .2 = .04 and
    # goes; 2 has .7 * .4 = .28 against .12, so 3 goes.
    assert taken(FRONT, keep, "hypervolume") == expected


@pytest.mark.parametrize("spread", SPREADS)
def test_a_rank_behind_is_split_too(spread: str) -> None:
    """What is taken of the second rank is spread over that rank: its scale is its own."""
    expected = {"epsilon_net": {5, 2}, "crowding": {5, 0}, "hypervolume": {5, 2}}[spread]
    assert taken([*FRONT, [20, 20]], 2, spread) == expected


@pytest.mark.parametrize("spread", SPREADS)
def test_of_equal_points_the_earlier_is_taken(spread: str) -> None:
    assert taken([[1, 2]] * 4, 2, spread) == {0, 1}
    # three objectives, so that an extreme of one column can stand in the middle of the others
    points = [[5, 1, 1], [9, 0, 2], [9, 0, 2], [0, 5, 1], [0, 5, 1], [1, 1, 5]]
    assert taken(points, 4, spread) == {0, 1, 3, 5}


def test_a_column_that_does_not_vary_has_no_extremes() -> None:
    # in the second and third column the extremes are 1 and 2; the first column says nothing
    assert taken([[7, 2, 2], [7, 4, 0], [7, 0, 4]], 2, "crowding") == {1, 2}


@pytest.mark.parametrize("spread", SPREADS)
def test_one_objective_is_a_plain_order(spread: str) -> None:
    assert taken([[3.0], [9.0], [1.0], [9.0], [4.0]], 3, spread) == {1, 3, 4}
    assert taken([[3.0], [9.0], [1.0], [9.0], [4.0]], 1, spread) == {1}
    assert ranks(np.array([[3.0], [9.0], [1.0], [9.0], [-0.0], [0.0]])).tolist() == [1, 0, 2, 0, 3, 3]


@pytest.mark.parametrize("spread", SPREADS)
def test_ties_do_not_depend_on_the_units(spread: str) -> None:
    """Symmetric points tie exactly; a scale and a shift that floats cannot hold must not break the tie."""
    points = np.array([[0, 6], [1, 5], [2, 4], [3, 3], [4, 2], [5, 1], [6, 0]], dtype=float)
    for keep in range(1, 7):
        expected = taken(points, keep, spread)
        for scale, shift in ((0.3, 0.7), (1e-3, 1 / 3), (123.4, -5.1), ([0.1, 7.7], [0.1, -0.3])):
            assert taken(points * scale + shift, keep, spread) == expected


clouds = st.integers(1, 3).flatmap(
    lambda m: st.lists(st.tuples(*[st.integers(-4, 4)] * m), min_size=1, max_size=12).map(
        lambda rows: np.array(rows, dtype=float)
    )
)


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a >= b).all() and (a > b).any())


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(clouds)
def test_ranks_are_fronts_peeled_off(points: np.ndarray) -> None:
    expected = np.full(len(points), -1)
    level = 0
    while (expected < 0).any():
        left = np.flatnonzero(expected < 0)
        expected[[i for i in left if not any(dominates(points[j], points[i]) for j in left)]] = level
        level += 1
    assert ranks(points).tolist() == expected.tolist()


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(clouds, st.integers(1, 12), st.sampled_from(SPREADS), st.integers(-8, 8), st.integers(-50, 50))
def test_best_of_any_cloud(points: np.ndarray, keep: int, spread: str, power: int, shift: int) -> None:
    mask = best(points, keep, spread)
    assert mask.sum() == min(keep, len(points))
    for out in np.flatnonzero(~mask):
        assert not any(dominates(points[out], points[i]) for i in np.flatnonzero(mask))
        equal = np.flatnonzero((points == points[out]).all(axis=1))
        assert not any(mask[i] for i in equal if i > out)  # of equals the earlier
    moved = points.copy()  # powers of two and whole numbers: exact in floats
    moved[:, 0] = moved[:, 0] * 2.0**power + shift * 2.0**power
    assert best(moved, keep, spread).tolist() == mask.tolist()
