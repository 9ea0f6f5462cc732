"""A grid: every point once, in a shuffled order."""

from __future__ import annotations

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
