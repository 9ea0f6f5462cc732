"""Sums of what layers lose: the best levels that keep bounds on other figures, by brute force over a fine grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest

from raydistill.search import Choice, Dimension, LogUniform, SearchSpace, Uniform
from raydistill.search.searchers import Aim
from raydistill.search.searchers.base import Bound
from raydistill.search.searchers.damages import Damages, draws_levels, is_level, nearest_to

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


@pytest.mark.parametrize(
    ("distribution", "level"),
    [
        (Uniform(0.0, 1.0), False),
        (Uniform(0.0, 0.99), True),
        (Uniform(-0.1, 0.9), False),
        (Choice((0, 0.5)), True),
        (Choice((0.5, 1.0)), False),
        (Choice((False, True)), False),
        (Choice((0.5, "all")), False),
    ],
)
def test_levels_are_fractions_from_nothing_to_less_than_all(distribution, level: bool) -> None:  # type: ignore[no-untyped-def]
    assert draws_levels(distribution) is level


def two() -> SearchSpace:
    return SearchSpace(tuple(Dimension(name, Uniform(0.0, 0.96), name, "level") for name in "ab"))


def test_a_layers_loss_between_its_points_goes_by_the_logarithm_of_its_density() -> None:
    """Of levels from 0 to 0.96 in steps of 0.015. Beyond the last point nothing more is known; and it never falls."""
    points = [(0.9, 0.3), (0.45, 0.1), (0.6, 0.05), (0.15, -0.2)]
    damage = Damages(two(), {"a": points}).damage
    found = damage[0] / damage[1, -1] * 0.96**2  # b is said to lose by the square of its level
    levels = np.linspace(0.0, 0.96, 65)
    by_hand = np.zeros(65)
    known = [(0.0, 0.0), (0.15, 0.0), (0.45, 0.1), (0.6, 0.1), (0.9, 0.3), (0.97, 0.3)]
    for (low, before), (high, after) in itertools.pairwise(known):
        for place, level in enumerate(levels):
            if low <= level < high:
                way = math.log((1 - low) / (1 - level)) / math.log((1 - low) / (1 - high))
                by_hand[place] = before + way * (after - before)
    assert found == pytest.approx(by_hand, abs=3e-6)
    assert (np.diff(found) > 0).all()  # of levels that lose the same the lower one is better
    assert damage[1] == pytest.approx(damage[1, -1] * np.linspace(0, 1, 65) ** 2)
    assert damage[:, -1].mean() == pytest.approx(1.0)


def test_a_whole_layer_may_be_told_to_lose_something() -> None:
    damage = Damages(two(), {"a": [(1.0, 0.5)]}).damage
    way = math.log(1 - 0.96) / math.log(1e-4)  # all of it: one in 10,000 is left
    assert damage[0, -1] / damage[1, -1] == pytest.approx(0.5 * way / 0.96**2, abs=1e-5)


def test_a_curve_may_bend_between_its_ends_alone() -> None:
    damages = Damages(two())
    shares = np.linspace(0.0, 1.0, 65)
    assert damages.bend == pytest.approx(np.tile(shares - shares**2, (2, 1)))


def test_nothing_to_prune_is_no_fault() -> None:
    damages = Damages(SearchSpace((Dimension("training.lr", LogUniform(0.01, 0.1)),)))
    assert (damages.layers, damages.rest, damages.damage.shape) == ([], [0], (0, 65))


def test_what_is_brought_is_told_in_shares_of_all_that_could_be() -> None:
    damages = Damages(two(), None, {"a": 10.0, "b": 30.0}, Aim(figure=-20.0, dense=-40.0))
    units = np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert damages.places(units).tolist() == [[0, 0], [32, 0], [0, 64], [64, 64]]
    assert damages.gains(units) == pytest.approx([0.0, 0.12, 0.72, 0.96])
    assert damages.own.share(-30.0) == pytest.approx(0.25)
    assert (damages.least, damages.bounded) == (0.5, [damages.own])
    assert damages.keeps(units).tolist() == [False, False, True, True]
    alone = Damages(two(), None, {"b": 3.0})  # a size that is not told is 1
    assert alone.gains(units) == pytest.approx([0.0, 0.12, 0.72, 0.96])
    assert (alone.least, alone.bounded) == (0.0, [])
    assert Damages(two(), None, {"a": 1.0, "b": 1.0}, Aim(figure=7.0)).least == 1.0  # more than all is not asked for


def test_a_bound_is_nearly_kept_up_to_a_share_of_what_pruning_could_bring() -> None:
    least = 0.48 + 0.08  # of a and b alike; one pruned whole brings 0.48
    damages = Damages(two(), None, None, Aim(figure=2 * least))
    around = np.array([[1.0, 0.0], [1.0, 1 / 64], [63 / 64, 0.0]])
    assert damages.keeps(around).tolist()[1:] == [True, False]
    beside = Bound(0.3, 0.0, {"a": 1.0, "b": 0.0})
    both = Damages(two(), None, None, Aim(figure=2 * least, beside=(beside,)))
    assert both.keeps(np.array([[1.0, 0.5], [0.1, 1.0], [0.5, 1.0]])).tolist() == [True, False, True]
    assert Damages(two()).keeps(around).all()


def test_where_on_the_front_trials_lie() -> None:
    """Without a bound evenly, whatever their number; with one the first on it, and more of them near it."""
    free, held = Damages(two()), Damages(two(), None, None, Aim(figure=0.5))
    for seed in (0, 3):
        shares = np.array([free.share(seed, trial) for trial in range(50)])
        assert shares[0] == pytest.approx(0.5 + 0.1 * seed)
        assert np.histogram(shares, 10, (0.0, 1.0))[0].min() >= 4
        near = np.array([held.share(seed, trial) for trial in range(50)])
        assert near[0] == 0.0
        assert np.histogram(np.sqrt(near), 10, (0.0, 1.0))[0].min() >= 4
    assert len({free.share(seed, 0) for seed in range(9)}) == 9


def test_what_is_wanted_along_the_front_is_even_in_the_logarithm_of_what_is_left() -> None:
    reached = np.array([0.75, 0.19, 0.5])
    assert Damages(two()).wanted(reached, np.array([0.0, 0.5, 1.0])) == pytest.approx([0.19, 0.55, 0.75])
    bounded = Damages(two(), None, None, Aim(figure=2 * 0.36))
    assert bounded.wanted(reached, np.array([0.0, 0.5, 1.0])) == pytest.approx([0.36, 0.6, 0.75])
    assert Damages(two()).wanted(np.array([0.0, 1.0]), 1.0) == pytest.approx(0.999)  # something has to be left


def test_allocations_for_a_price_are_lagranges() -> None:
    """Of a^2 + b^2 that bring a + 2 b: b = 2 a, and then b is pruned whole."""
    damages = Damages(two(), None, {"b": 2.0})
    places, reached = damages.choices(damages.damage)
    assert reached == pytest.approx(places @ np.array([1.0, 2.0]) / 64 * 0.96 / 3)
    assert all(abs(b - min(2 * a, 64)) <= 1 for a, b in places)
    assert (reached.min(), reached.max()) == (0.0, pytest.approx(0.96))
    assert np.diff(np.sort(reached)).max() < 0.06
    assert len(np.unique(places, axis=0)) == len(places)


def test_layers_pruned_together_bring_more_or_less_than_by_themselves() -> None:
    other = Bound(0.5, 0.0, {"a": 0.75, "b": 0.25})
    damages = Damages(two(), None, {"a": 0.25, "b": 0.75}, Aim(figure=0.2, beside=(other,)))
    for together in (None, [0.5, 1.0], [1.0, 0.6], [0.25, 1.5]):
        own, beside = together or (1.0, 1.0)
        places, reached = damages.choices(damages.damage, together)
        levels = places / 64 * 0.96
        assert reached == pytest.approx(own * levels @ np.array([0.25, 0.75]))
        assert reached.min() >= 0.2 - 1e-9
        assert (beside * levels @ np.array([0.75, 0.25]) >= 0.5 - 1e-9).all()
        lost = (levels**2).sum(axis=1)
        for each, cost in zip(reached, lost, strict=True):  # none brings more and loses less
            assert not ((reached > each + 1e-9) & (lost < cost - 1e-9)).any()
    lightest = min(damages.damage[np.arange(2), each].sum() for each in damages.choices(damages.damage)[0])
    grid = np.array(list(itertools.product(range(65), repeat=2)))
    kept = grid[(grid / 64 * 0.96 @ np.array([0.75, 0.25]) >= 0.5) & (grid / 64 * 0.96 @ np.array([0.25, 0.75]) >= 0.2)]
    assert lightest < 1.2 * damages.damage[np.arange(2), kept].sum(axis=1).min()


def test_by_curves_everything_but_the_levels_stays() -> None:
    rate = Dimension("training.lr", LogUniform(0.01, 0.1))
    space = SearchSpace((two().dimensions[0], rate, two().dimensions[1]))
    damages = Damages(space)
    assert (damages.layers, damages.rest) == ([0, 2], [1])
    units = np.array([0.1, 0.77, 0.2])
    for share in (0.0, 0.4, 1.0):
        placed = damages.by_curves(units, share)
        assert placed[1] == 0.77
        assert float(damages.gains(placed[None])[0]) == pytest.approx(1.0 - 0.04**share, abs=0.03)
        assert placed[0] == pytest.approx(placed[2], abs=1 / 64)
    assert units.tolist() == [0.1, 0.77, 0.2]


def held(least: float, *others: float, foreseen: object = None) -> Damages:
    """What is left of the levels of a and b alike is to be brought to `least` of 1; of each alone to `others`."""

    def alike(values: Mapping[str, object]) -> float:
        a, b = (float(str(values[name])) for name in "ab")
        return (a + b) / 2

    def alone(name: str):  # type: ignore[no-untyped-def]
        return lambda values: float(str(values[name]))

    beside = tuple(Bound(o, 0.0, {n: 1.0, m: 0.0}, alone(n)) for n, m, o in zip("ab", "ba", others, strict=False))
    aim = Aim(figure=least, foreseen=foreseen or alike, beside=beside)  # type: ignore[arg-type]
    return Damages(two(), None, {"a": 0.5, "b": 0.5}, aim)


def moved(damages: Damages, *levels: float) -> list[float]:
    return (damages.on_the_bound(np.array(levels) / 0.96) * 0.96).tolist()


def test_a_point_is_moved_onto_the_bound_that_it_breaks_or_is_near() -> None:
    for levels in ((0.2, 0.4), (0.3, 0.6), (0.35, 0.65)):  # 0.3, 0.45 and 0.5, where 0.48 is asked for
        a, b = moved(held(0.48), *levels)
        assert 0.48 <= (a + b) / 2 < 0.49
        assert a / b == pytest.approx(levels[0] / levels[1])
    assert moved(held(0.48), 0.4, 0.72) == pytest.approx([0.4, 0.72])  # that keeps it by 0.08
    assert sum(moved(held(0.48), 0.4, 0.71)) == pytest.approx(0.96, abs=0.02)
    a, b = moved(held(0.75), 0.4, 0.8)  # b can go no further
    assert (b, a) == (pytest.approx(0.96), pytest.approx(0.54, abs=0.02))


def test_a_point_is_moved_onto_the_tightest_of_several_bounds() -> None:
    a, b = moved(held(0.3, 0.5), 0.2, 0.4)
    assert (a, b / a) == (pytest.approx(0.505, abs=0.006), pytest.approx(0.96 / a))
    a, b = moved(held(0.3, 0.15, 0.6), 0.3, 0.4)
    assert (b, a / b) == (pytest.approx(0.605, abs=0.006), pytest.approx(0.75))
    assert moved(held(0.0, 0.15), 0.3, 0.4) == pytest.approx([0.3, 0.4])


def test_a_point_that_no_stretching_helps_is_stretched_twentyfold_at_most() -> None:
    a, b = moved(held(0.95), 0.0096, 0.48)
    assert (a, b) == (pytest.approx(20 * 0.0096, abs=0.002), pytest.approx(0.96))


def test_what_cannot_be_foreseen_is_not_moved() -> None:
    nothing = held(0.48, foreseen=lambda values: math.nan)
    assert moved(nothing, 0.2, 0.4) == pytest.approx([0.2, 0.4])
    unforeseen = Damages(two(), None, None, Aim(figure=0.9))
    assert moved(unforeseen, 0.2, 0.4) == pytest.approx([0.2, 0.4])
    one = held(0.48, 0.3, foreseen=lambda values: math.nan)  # the other bound still holds
    assert moved(one, 0.2, 0.4)[0] == pytest.approx(0.303, abs=0.004)


def test_of_what_is_reached_the_nearest_is_taken() -> None:
    assert nearest_to(np.array([0.1, 0.9, 0.5]), np.array([0.0, 0.65, 2.0])).tolist() == [0, 2, 1]
