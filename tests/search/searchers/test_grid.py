"""A grid: every point once, in a shuffled order."""

from __future__ import annotations

import itertools

import pytest

from raydistill.search import Choice, QUniform, RandInt, Uniform
from raydistill.search.searchers import GridSearcher
from tests.search.spaces import space


def test_a_grid_takes_every_point_once() -> None:
    over = space(Uniform(0, 1), Choice(("a", "b", "c", "d")), RandInt(0, 2), RandInt(0, 100), QUniform(0.1, 0.2, 0.1))
    grids = [GridSearcher(over, seed, points=3) for seed in (0, 1)]
    assert grids[0].size == 3 * 4 * 2 * 3 * 2
    orders = [[tuple(grid.suggest(i, (), ()).values()) for i in range(grid.size)] for grid in grids]
    expected = {
        (x, word, coin, whole, step)
        for x in (0.0, 0.5, 1.0) for word in "abcd" for coin in (0, 1) for whole in (0, 50, 99) for step in (0.1, 0.2)
    }  # fmt: skip
    for order in orders:
        assert len(order) == len(expected)
        assert set(order) == expected
    assert orders[0] != orders[1]
    assert len({point[0] for point in orders[0][:12]}) == 3  # a part of the grid spans all of it
    assert grids[0].suggest(grids[0].size, (), ()) is None


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [13, 14, 60])
def test_a_grid_too_large_to_list(dimensions: int) -> None:
    """3^60 is more than 64 bits count."""
    over = space(*[Uniform(0, 1)] * dimensions)
    grid = GridSearcher(over, 0)
    assert grid.size == 3**dimensions
    points = [tuple(grid.suggest(i, (), ()).values()) for i in range(200)]
    assert len(set(points)) == 200
    assert all(set(column) == {0.0, 0.5, 1.0} for column in zip(*points, strict=True))
    assert points != [tuple(GridSearcher(over, 1).suggest(i, (), ()).values()) for i in range(200)]
    assert grid.suggest(grid.size - 1, (), ()) is not None
    assert grid.suggest(grid.size, (), ()) is None


def test_one_point_is_the_middle_and_two_are_the_ends() -> None:
    over = space(Uniform(0, 1), RandInt(0, 9), QUniform(1, 5, 1), Choice(("a", "b")), RandInt(4, 5))
    one, two = GridSearcher(over, 0, points=1), GridSearcher(over, 0, points=2)
    assert (one.size, two.size) == (2, 2 * 2 * 2 * 2)
    assert {tuple(one.suggest(i, (), ()).values()) for i in range(2)} == {(0.5, 4, 3, w, 4) for w in "ab"}
    columns = zip(*(two.suggest(i, (), ()).values() for i in range(16)), strict=True)
    assert [set(column) for column in columns] == [{0.0, 1.0}, {0, 8}, {1, 5}, {"a", "b"}, {4}]
    assert GridSearcher(space(Uniform(0, 1)), 0).size == 3


def test_neighbours_in_a_large_grids_order_lie_far_apart() -> None:
    """A step is between a third and a half of the grid: it always leads to another third."""
    for seed in range(6):
        grid = GridSearcher(space(*[Uniform(0, 1)] * 14), seed)
        first = [grid.suggest(trial, (), ())["a.d0"] for trial in range(20)]
        assert all(one != other for one, other in itertools.pairwise(first))
