"""Random search."""

from __future__ import annotations

import numpy as np

from raydistill.search import Choice, Uniform
from raydistill.search.searchers.random import RandomSearcher
from tests.search.spaces import space


def test_draws_are_independent_of_order_and_fill_the_range() -> None:
    over = space(Uniform(2.0, 4.0), Choice(("a", "b")))
    drawn = [RandomSearcher(over, 5).suggest(trial, (), ()) for trial in range(200)]
    searcher = RandomSearcher(over, 5)
    assert [searcher.suggest(trial, (), ()) for trial in reversed(range(200))] == drawn[::-1]
    numbers = np.array([values["a.d0"] for values in drawn])
    assert abs(numbers.mean() - 3.0) < 4 * (2.0 / 12**0.5) / 200**0.5  # four standard errors of a uniform mean
    assert 60 < sum(values["a.d1"] == "a" for values in drawn) < 140
    assert RandomSearcher(over, 6).suggest(0, (), ()) != drawn[0]
