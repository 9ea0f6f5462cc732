"""A Sobol sequence is SciPy's."""

from __future__ import annotations

import numpy as np
import pytest

from raydistill.search import RandInt, Uniform
from raydistill.search.searchers import SEARCHERS, SobolSearcher
from tests.search.spaces import space


def test_sobol_is_scipys_sequence_and_more_even_than_chance() -> None:
    from scipy.stats import qmc

    over = space(*[Uniform(0, 1)] * 3)
    for seed in (0, 1):
        points = {
            name: np.array([list(SEARCHERS[name](over, seed).suggest(i, (), ()).values()) for i in range(32)])
            for name in ("sobol", "random")
        }
        assert points["sobol"] == pytest.approx(qmc.Sobol(3, scramble=True, seed=seed).random(32))
        assert qmc.discrepancy(points["sobol"]) < 0.5 * qmc.discrepancy(points["random"])


def test_the_searcher_is_the_one_of_that_name_and_asks_for_no_result() -> None:
    over = space(Uniform(0, 1), RandInt(0, 8))
    assert SEARCHERS["sobol"] is SobolSearcher
    backwards = [dict(SobolSearcher(over, 3).suggest(trial, (), ())) for trial in reversed(range(8))]
    searcher = SobolSearcher(over, 3)
    assert [dict(searcher.suggest(trial, (), ())) for trial in range(8)] == backwards[::-1]
