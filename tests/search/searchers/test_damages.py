"""Sums of what layers lose: the best levels that keep bounds on other figures, by brute force over a fine grid."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from raydistill.search import Choice, Dimension, SearchSpace, Uniform
from raydistill.search.searchers import Aim
from raydistill.search.searchers.base import Bound
from raydistill.search.searchers.damages import Damages, is_level, nearest_to

NAMES = ("a.weight", "b.weight", "c.weight")
LEVELS = np.linspace(0.02, 0.98, 49)
COSTS = {"a.weight": 1.0, "b.weight": 3.0, "c.weight": 0.5}
WEIGHTS = {"a.weight": 10.0, "b.weight": 30.0, "c.weight": 60.0}
MACS = {"a.weight": 70.0, "b.weight": 20.0, "c.weight": 10.0}
SPACE = SearchSpace(tuple(Dimension(f"per_layer.{n}.level", Uniform(0.0, 0.98), n, "level") for n in NAMES))
CURVES = {name: [(float(v), cost * v**2) for v in LEVELS] for name, cost in COSTS.items()}


def share(sizes: Mapping[str, float], levels: np.ndarray) -> float:
    return float(levels @ np.array([sizes[name] for name in NAMES])) / sum(sizes.values())


def lost(levels: np.ndarray) -> float:
    return float(levels**2 @ np.array([COSTS[name] for name in NAMES]))


def bounded(least: float) -> Damages:
    """A bound on what the MACs come down to, of 100."""

    def foreseen(values: Mapping[str, object]) -> float:
        return -100.0 * (1.0 - share(MACS, np.array([float(str(v)) for v in values.values()])))

    return Damages(SPACE, CURVES, WEIGHTS, Aim(beside=(Bound(-least, -100.0, MACS, foreseen),)))


@pytest.mark.slow
def test_no_levels_of_a_grid_that_keep_the_other_bound_lose_less() -> None:
    damages = bounded(50.0)
    places, reached = damages.choices(damages.damage)
    levels = places / 64 * 0.98
    assert all(share(MACS, each) >= 0.5 - 1e-6 for each in levels)
    grid = np.array(list(itertools.product(np.linspace(0.0, 0.98, 29), repeat=3)))
    kept = np.array([each for each in grid if share(MACS, each) >= 0.5])
    for wanted in (0.5, 0.7, 0.85):
        found = levels[nearest_to(reached, np.array([wanted * 0.98]))[0]]
        enough = [each for each in kept if share(WEIGHTS, each) >= share(WEIGHTS, found)]
        assert lost(found) < 1.05 * min(map(lost, enough))
    free, _ = Damages(SPACE, CURVES, WEIGHTS).choices(damages.damage)
    assert min(share(MACS, each) for each in free / 64 * 0.98) < 0.1  # without it the front begins at nothing


def test_what_is_placed_lies_on_the_tightest_bound_or_keeps_all_of_them() -> None:
    damages = bounded(50.0)
    found = [damages.by_curves(np.zeros(3), damages.share(0, trial)) * 0.98 for trial in range(8)]
    macs = [100.0 * (1.0 - share(MACS, levels)) for levels in found]
    assert max(macs) <= 50.0 + 1e-6
    assert macs[0] == pytest.approx(50.0, abs=0.6)
    zeros = [share(WEIGHTS, levels) for levels in found]
    assert max(zeros) - min(zeros) > 0.2  # and the others go on along the front


def test_a_bound_that_nothing_keeps_is_approached_and_one_that_is_kept_anyway_is_none() -> None:
    nothing = bounded(1.0)  # of 100, where 2 is the least that can be
    places, _ = nothing.choices(nothing.damage)
    assert (places == 64).all()
    assert not bounded(100.0).bounded


def test_only_fractions_of_one_layer_are_levels() -> None:
    assert is_level(Dimension("x", Uniform(0.1, 0.9), "a.weight", "final_sparsity"))
    assert not is_level(Dimension("x", Uniform(0.1, 0.9)))
    assert not is_level(Dimension("x", Choice((2, 4, 8)), "a.weight", "bits_weights"))
    assert not is_level(Dimension("x", Choice(("l1", "l2")), "a.weight", "ranking"))
