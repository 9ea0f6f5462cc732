"""Searchers: what they draw, that they repeat themselves, and that those that learn have learnt."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import qmc

from raydistill.records import Scalar
from raydistill.search import (
    Choice,
    Dimension,
    LogUniform,
    QUniform,
    RandInt,
    SearchSpace,
    Uniform,
    hypervolume,
)
from raydistill.search.observations import Observation, comparable
from raydistill.search.searchers import LEARNS, SEARCHERS, EvolutionSearcher, GridSearcher, NSGA2Searcher, SobolSearcher


def space(*distributions: object) -> SearchSpace:
    return SearchSpace(tuple(Dimension(f"a.d{i}", d) for i, d in enumerate(distributions)))  # type: ignore[arg-type]


KINDS = space(
    Uniform(0.1, 0.9), LogUniform(1e-4, 1e-1), QUniform(32, 256, 32), QUniform(0.1, 0.9, 0.1), RandInt(-2, 4),
    Choice(("sgd", "adam", "rmsprop")), Choice((True, False)), Choice((0.5, 0.25, 4.0)), RandInt(3, 4),
)  # fmt: skip
TYPES = [float, float, int, float, int, str, bool, float, int]
OUTSIDE: dict[str, Scalar] = dict(
    zip((d.path for d in KINDS.dimensions), (2.0, 0.5, 999, 0.33, 40, "lion", 1, 0.3, -7), strict=True)
)


def surface(values: dict[str, Scalar]) -> tuple[float, float]:
    """Something that depends on every dimension but the last, to learn from."""
    unit = KINDS.to_unit(values)
    return float(1 - ((unit - 0.4) ** 2).sum()), float(unit[:3].sum())


def observed(count: int, outside: bool = False) -> list[Observation]:
    drawn = [dict(KINDS.sample_trial(99, i)) for i in range(count)]
    if outside:
        drawn[1] = OUTSIDE
    seen = [Observation(i, values, {4: surface(values)}, True) for i, values in enumerate(drawn)]
    running = dict(OUTSIDE if outside else KINDS.sample_trial(99, count))
    return [*seen, Observation(count, running)]


GP = pytest.param("gp", marks=pytest.mark.slow)
STARTUP = {name: {"startup": 4} for name in LEARNS} | {"nsga2": {"startup": 4, "population": 4}}


def make(name: str, seed: int, over: SearchSpace = KINDS):
    return SEARCHERS[name](over, seed, **STARTUP.get(name, {}))


@pytest.mark.parametrize("name", [*(name for name in SEARCHERS if name not in ("motpe", "gp")), GP])
def test_values_are_inside_builtins_and_repeat(name: str) -> None:
    seen = observed(6)
    trials = (7,) if name == "gp" else (7, 8, 9)
    for trial in trials:
        values = make(name, 3).suggest(trial, seen, [4])
        assert list(values) == [d.path for d in KINDS.dimensions]
        for dimension, kind in zip(KINDS.dimensions, TYPES, strict=True):
            assert type(values[dimension.path]) is kind
            assert dimension.distribution.contains(values[dimension.path])
        assert make(name, 3).suggest(trial, seen, [4]) == values
    if name != "gp":
        assert make(name, 4).suggest(7, seen, [4]) != make(name, 3).suggest(7, seen, [4])


@pytest.mark.parametrize("name", [*sorted(LEARNS - {"motpe", "gp"}), GP])
def test_values_outside_the_bounds_break_no_searcher(name: str) -> None:
    """A warm start need not lie within the space."""
    values = make(name, 3).suggest(7, observed(5, outside=True), [4])
    assert all(d.distribution.contains(values[d.path]) for d in KINDS.dimensions)


@pytest.mark.parametrize("name", [*sorted(LEARNS - {"motpe", "gp"}), GP])
def test_before_there_is_a_model_learners_spread_evenly(name: str) -> None:
    few = observed(3)
    assert make(name, 3).suggest(3, few, [4]) == SobolSearcher(KINDS, 3).suggest(3, few, [4])
    assert make(name, 3).suggest(4, observed(6), [4]) != SobolSearcher(KINDS, 3).suggest(4, few, [4])


def test_units_and_values() -> None:
    for dimension, kind in zip(KINDS.dimensions, TYPES, strict=True):
        distribution = dimension.distribution
        for u in np.linspace(0, 1, 41):
            value = distribution.from_unit(float(u))
            assert type(value) is kind
            assert distribution.contains(value)
            assert distribution.from_unit(distribution.to_unit(value)) == pytest.approx(value)
        assert 0 <= distribution.to_unit(OUTSIDE[dimension.path]) <= 1
    assert LogUniform(1e-4, 1.0).from_unit(0.5) == pytest.approx(1e-2)
    assert [QUniform(0.1, 0.5, 0.1).from_unit(u) for u in (0, 0.19, 0.21, 0.59, 0.99, 1)] == [
        0.1, 0.1, 0.2, 0.3, 0.5, 0.5,
    ]  # fmt: skip
    assert QUniform(0.1, 0.5, 0.1).to_unit(0.3) == pytest.approx(0.5)
    assert RandInt(0, 4).to_unit(1) == pytest.approx(0.375)
    assert [Choice((True, 1, 1.5)).to_unit(v) for v in (True, 1, 1.5)] == pytest.approx([1 / 6, 1 / 2, 5 / 6])


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


def test_sobol_is_scipys_sequence_and_more_even_than_chance() -> None:
    over = space(*[Uniform(0, 1)] * 3)
    for seed in (0, 1):
        points = {
            name: np.array([list(SEARCHERS[name](over, seed).suggest(i, (), ()).values()) for i in range(32)])
            for name in ("sobol", "random")
        }
        assert points["sobol"] == pytest.approx(qmc.Sobol(3, scramble=True, seed=seed).random(32))
        assert qmc.discrepancy(points["sobol"]) < 0.5 * qmc.discrepancy(points["random"])


SURFACE = space(*[Uniform(0.0, 1.0)] * 3, LogUniform(1e-3, 1.0))
BEND = np.array([1.0, 3.0, 9.0])


def pruned(values: dict[str, Scalar]) -> tuple[float, float]:
    """(top1, sparsity) of layers that bear it differently, at a learning rate that is right at 0.03."""
    units = SURFACE.to_unit(values)
    top1 = 1 - 0.5 * float((units[:3] ** (1 + BEND)).mean()) - 3 * abs(math.log10(float(values["a.d3"]) / 0.03)) / 3
    return top1, float(units[:3].mean())


def reached(name: str, seed: int, trials: int) -> float:
    """Hypervolume of `trials` trials, one at a time."""
    searcher = SEARCHERS[name](SURFACE, seed, **({"startup": 10} if name in LEARNS else {}))
    seen: list[Observation] = []
    for trial in range(trials):
        values = searcher.suggest(trial, seen, [1])
        seen.append(Observation(trial, values, {1: pruned(dict(values))}, True))
    return hypervolume([o.points[1] for o in seen], ["max", "max"], [0, 0])


@pytest.mark.parametrize(
    ("name", "trials"), [("evolution", 90), ("motpe", 60), pytest.param("gp", 18, marks=pytest.mark.slow)]
)
def test_learners_beat_chance(name: str, trials: int) -> None:
    """What learners add over the even start that they share with Sobol is what they have learnt."""
    learnt = reached(name, 0, trials)
    luck = [reached(other, seed, trials) for other in ("random", "sobol") for seed in range(5)]
    assert learnt > max(luck) + 0.03


def test_children_of_nsga2_come_of_their_parents() -> None:
    """Most of a child's words are a parent's: parents know only two of five, and chance would take the others too."""
    over = space(*[Choice(("a", "b", "c", "d", "e"))] * 10)
    seen = [
        Observation(i, {d.path: "ab"[(i >> k) % 2] for k, d in enumerate(over.dimensions)}, {1: (i, -i)}, True)
        for i in range(8)
    ]
    words = [
        word
        for trial in range(8, 14)
        for word in NSGA2Searcher(over, 0, startup=8, population=8).suggest(trial, seen, [1]).values()
    ]
    assert sum(word in "ab" for word in words) > 0.8 * len(words)  # 0.4 by chance; 0.94 with a mutation in ten


def test_evolution_stays_near_the_front() -> None:
    """Nine far from it, one on it: with one parent every child is its neighbour."""
    over = space(*[Uniform(0.0, 1.0)] * 4)
    paths = [d.path for d in over.dimensions]
    seen = [Observation(i, dict.fromkeys(paths, 0.9), {1: (0.0, 0.0)}, True) for i in range(9)]
    seen.append(Observation(9, dict.fromkeys(paths, 0.2), {1: (1.0, 1.0)}, True))
    for trial in range(10, 20):
        child = EvolutionSearcher(over, 0, startup=10, parents=1).suggest(trial, seen, [1])
        assert any(value != 0.2 for value in child.values())
        assert all(value < 0.65 for value in child.values())


def test_evolution_tries_the_other_options_too() -> None:
    """One parent, so that every other option comes of a mutation; a step of 0.1 would seldom leave half of [0, 1]."""
    numbers = [Uniform(0.0, 1.0)] * 3
    over = space(Choice((True, False)), Choice(("a", "b", "c")), RandInt(0, 2), QUniform(0.5, 1.0, 0.5), Choice(("x",)),
                 *numbers)  # fmt: skip
    parent: list[Scalar] = [True, "b", 0, 1.0, "x", 0.5, 0.5, 0.5]
    values = {d.path: value for d, value in zip(over.dimensions, parent, strict=True)}
    seen = [Observation(i, values, {1: (1.0, 1.0)}, True) for i in range(4)]
    children = [
        tuple(EvolutionSearcher(over, 0, startup=4, parents=1).suggest(trial, seen, [1]).values())
        for trial in range(4, 204)
    ]
    # one in eight of each switches, and one more of the eight surely
    for column, other in ((0, False), (1, "a"), (1, "c"), (2, 1), (3, 0.5)):
        found = sum(child[column] == other for child in children) / len(children)
        assert 0.05 < found < 0.4, (column, other, found)
    assert {child[4] for child in children} == {"x"}
    assert all(child != tuple(parent) for child in children)


def test_comparable_takes_the_latest_stage_that_enough_reached() -> None:
    def seen(trial: int, *points: tuple[int, float]) -> Observation:
        return Observation(trial, {}, {epochs: (top1,) for epochs, top1 in points})

    trials = [seen(0, (1, 0.1), (4, 0.2)), seen(1, (1, 0.3), (4, 0.4), (16, 0.5)), seen(2, (1, 0.6)), seen(3),
              seen(4, (1, 0.7), (4, math.nan)), seen(5, (2, 0.8))]  # fmt: skip

    def at(minimum: int) -> list[tuple[int, float]]:
        return [(o.trial, float(point[0])) for o, point in comparable(trials, [16, 1, 4], minimum)]

    assert at(1) == [(1, 0.5)]
    assert at(2) == [(0, 0.2), (1, 0.4)]
    assert at(3) == at(5) == [(0, 0.1), (1, 0.3), (2, 0.6), (4, 0.7), (5, 0.8)]  # 5 came at 2: its first from 1 on
    assert at(6) == []
    assert comparable([], [1], 1) == []
