"""Allocations by layers' curves: Lagrange's by hand, corrected by trials, the gain in volume by another library."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raydistill.search import Choice, Dimension, LogUniform, SearchSpace, Uniform, hypervolume
from raydistill.search.observations import Observation
from raydistill.search.searchers import AdditiveSearcher, Aim, SobolSearcher
from raydistill.search.searchers.additive import _added
from raydistill.search.searchers.base import Bound

LAYERS = ("a.weight", "b.weight")
LEVELS = np.linspace(0.02, 0.98, 49)


def space(*more: Dimension) -> SearchSpace:
    layers = [
        Dimension(f"per_layer.{name}.final_sparsity", Uniform(0.0, 0.98), name, "final_sparsity") for name in LAYERS
    ]
    return SearchSpace((*layers, *more))


def curves(**factors: float) -> dict[str, list[tuple[float, float]]]:
    """Damage is a factor times the square of the level."""
    return {f"{name}.weight": [(float(v), factor * v**2) for v in LEVELS] for name, factor in factors.items()}


def levels(values) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    a, b = (values[f"per_layer.{name}.final_sparsity"] for name in LAYERS)
    return float(a), float(b)


@pytest.mark.slow
def test_every_layer_costs_the_same_per_weight_removed() -> None:
    """Of f s^2 with equal sizes 2 f s is one price: the layer that bears a quarter is pruned a quarter as far. Of sizes
    that differ the price is for each weight: (2 f s) / size."""
    equal = AdditiveSearcher(space(), 0, 99, curves(a=1.0, b=4.0), {"a.weight": 100, "b.weight": 100})
    larger = AdditiveSearcher(space(), 0, 99, curves(a=1.0, b=4.0), {"a.weight": 100, "b.weight": 200})
    for searcher, ratio in ((equal, 0.25), (larger, 0.5)):
        found = [levels(searcher.suggest(trial, (), [4])) for trial in range(12)]
        inside = [(a, b) for a, b in found if 0.1 < a < 0.95]
        assert len(inside) >= 3
        for a, b in inside:
            assert b == pytest.approx(ratio * a, abs=0.04)
        assert all(b > ratio * 0.9 for a, b in found if a >= 0.97)  # once one is pruned whole, the other goes on


def test_the_first_trials_are_spread_over_the_whole_front() -> None:
    searcher = AdditiveSearcher(space(), 0, 99, curves(a=1.0, b=1.0))
    totals = sorted(sum(levels(searcher.suggest(trial, (), [4]))) / 2 for trial in range(8))
    assert totals[0] < 0.4
    assert totals[-1] > 0.9
    assert max(np.diff(totals)) < 0.4


def seen_by(searcher: AdditiveSearcher, truth, trials: int, noise: float = 0.0) -> list[Observation]:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(5)
    seen: list[Observation] = []
    for trial in range(trials):
        values = searcher.suggest(trial, seen, [4])
        a, b = levels(values)
        point = (0.9 - truth(a, b, values) + float(rng.normal(0, noise)), (a + b) / 2)
        seen.append(Observation(trial, values, {4: point}, True))
    return seen


@pytest.mark.slow
def test_trials_correct_curves_that_were_wrong() -> None:
    """The curves say that both bear the same; in truth retraining undoes nine tenths of what a loses."""
    searcher = AdditiveSearcher(space(), 1, 4, curves(a=1.0, b=1.0))
    seen = seen_by(searcher, lambda a, b, _: 0.01 * a**2 + 0.1 * b**2, 14, noise=0.001)
    first, last = ([levels(o.values) for o in part] for part in (seen[:4], seen[-5:]))
    assert all(a == pytest.approx(b, abs=0.02) for a, b in first)
    assert all(a > b + 0.1 for a, b in last if b < 0.9)
    assert any(b < 0.9 for _, b in last)


@pytest.mark.slow
def test_what_else_is_searched_is_learned_too() -> None:
    rate = Dimension("training.lr", LogUniform(1e-3, 1e-1))
    other = Dimension("policies.agp.frequency", Choice((1, 2)))
    searcher = AdditiveSearcher(space(rate, other), 2, 6, curves(a=1.0, b=1.0))

    def truth(a: float, b: float, values) -> float:  # type: ignore[no-untyped-def]
        return 0.05 * (a**2 + b**2) + 0.05 * abs(np.log10(float(values["training.lr"])) + 1.5)

    seen = seen_by(searcher, truth, 24)
    rates = np.log10([float(o.values["training.lr"]) for o in seen])
    assert np.abs(rates[-8:] + 1.5).mean() < 0.6 * np.abs(rates[:8] + 1.5).mean()
    assert {o.values["policies.agp.frequency"] for o in seen} == {1, 2}


@pytest.mark.slow
def test_trials_that_run_are_not_proposed_once_more() -> None:
    searcher = AdditiveSearcher(space(), 3, 4, curves(a=1.0, b=2.0))
    seen = seen_by(searcher, lambda a, b, _: 0.05 * a**2 + 0.1 * b**2, 8)
    running: list[Observation] = []
    for trial in range(8, 12):
        running.append(Observation(trial, searcher.suggest(trial, [*seen, *running], [4])))
    totals = sorted(sum(levels(o.values)) for o in running)
    assert min(np.diff(totals)) > 0.01


@pytest.mark.slow
def test_it_is_a_function_of_what_was_seen() -> None:
    seen = seen_by(AdditiveSearcher(space(), 3, 4, curves(a=1.0, b=2.0)), lambda a, b, _: 0.05 * a**2 + 0.1 * b**2, 7)
    again = AdditiveSearcher(space(), 3, 4).with_curves(curves(a=1.0, b=2.0), {}, Aim())
    once = AdditiveSearcher(space(), 3, 4, curves(a=1.0, b=2.0))
    assert again.suggest(7, seen, [4]) == once.suggest(7, list(seen), [4])
    assert once.suggest(8, seen, [4]) != once.suggest(7, seen, [4])


@pytest.mark.slow
def test_without_curves_it_learns_all_the_same() -> None:
    searcher = AdditiveSearcher(space(), 0, 4)
    seen = seen_by(searcher, lambda a, b, _: 0.01 * a**4 + 0.1 * b**4, 14)
    assert np.mean([a - b for a, b in (levels(o.values) for o in seen[-6:])]) > 0.02


def test_the_gain_in_volume_is_another_librarys() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 5):
        gains, metrics = rng.random(count), rng.random(count)
        new_gains, new_metrics = rng.random(20), rng.random(20) - 0.2
        found = _added(gains, metrics, new_gains, new_metrics)
        ours = [*zip(gains, metrics, strict=True)]
        before = hypervolume(ours, ["max", "max"], [0, 0]) if ours else 0.0
        for added, new in zip(found, zip(new_gains, new_metrics, strict=True), strict=True):
            assert added == pytest.approx(hypervolume([*ours, new], ["max", "max"], [0, 0]) - before, abs=1e-12)


def aimed(  # type: ignore[no-untyped-def]
    searcher_seed: int, aim: Aim, truth, figure, trials: int = 20, first: float = 10.0
) -> list[tuple[tuple[float, float], float]]:
    """(levels, figure) of each trial. Sizes are `first` and 30; the dense figure of 40 is to be brought down."""
    sizes = {"a.weight": first, "b.weight": 30.0}

    def foreseen(values) -> float:  # type: ignore[no-untyped-def]
        return -figure(*levels(values))

    aim = replace(aim, foreseen=foreseen)
    searcher = AdditiveSearcher(space(), searcher_seed, 4, curves(a=1.0, b=1.0), sizes, aim)
    seen: list[Observation] = []
    for trial in range(trials):
        values = searcher.suggest(trial, seen, [4])
        a, b = levels(values)
        seen.append(Observation(trial, values, {4: (0.9 - truth(a, b), -figure(a, b))}, True))
    return [(levels(o.values), -o.points[4][1]) for o in seen]


def lost(a: float, b: float) -> float:
    return 0.05 * a**2 + 0.1 * b**2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_bound_on_the_figure_is_where_it_searches(seed: int) -> None:
    """The best that keeps the bound lies on it: there Lagrange's a = 2 (10 / 30) b and 10 a + 30 b = 20."""
    found = aimed(seed, Aim(figure=-20.0, dense=-40.0), lost, lambda a, b: 40 - 10 * a - 30 * b)
    assert sum(figure <= 20.5 for _, figure in found) >= 18
    kept = [lost(a, b) for (a, b), figure in found if figure <= 20.0]
    b = 20 / (10 * 2 / 3 + 30)
    assert min(kept) < 1.04 * lost(2 / 3 * b, b)
    free = aimed(seed, Aim(), lost, lambda a, b: 40 - 10 * a - 30 * b)
    assert sum(figure <= 20.5 for _, figure in free) < 18  # without it, half of the front lies elsewhere


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_layers_that_bring_less_together_are_pruned_further(seed: int) -> None:
    """Two layers that follow each other: what stays is the product, so that each brings less beside the other than it
    did by itself."""

    def figure(a: float, b: float) -> float:
        return 10 * (1 - a) + 30 * (1 - a) * (1 - b)

    found = aimed(seed, Aim(figure=-16.0, dense=-40.0), lost, figure, first=40.0)
    late = [value for _, value in found[6:]]
    assert sum(value <= 16.3 for value in late) >= 12
    assert min(abs(value - 16.0) for value in late if value <= 16.0) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_bound_on_the_metric_is_where_it_searches(seed: int) -> None:
    """The smallest that loses no more than 0.03 lies there: 2 (0.05) a / 10 = 2 (0.1) b / 30, so b = 1.5 a."""
    found = aimed(seed, Aim(metric=0.87, dense=-40.0), lost, lambda a, b: 40 - 10 * a - 30 * b)
    kept = [figure for (a, b), figure in found if lost(a, b) <= 0.03]
    a = (0.03 / (0.05 + 0.1 * 1.5**2)) ** 0.5
    assert min(kept) < 40 - 0.97 * (10 * a + 30 * 1.5 * a)
    assert sum(lost(a, b) < 0.034 for (a, b), _ in found[6:]) >= 9


@pytest.mark.slow
def test_a_bound_that_nothing_can_keep_is_approached() -> None:
    found = aimed(0, Aim(figure=-0.1, dense=-40.0), lost, lambda a, b: 40 - 10 * a - 30 * b, trials=8)
    assert all(a > 0.9 and b > 0.9 for (a, b), _ in found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_bound_on_another_figure_is_kept_all_along(seed: int) -> None:
    """Of the figure optimised, a brings 10 and b 30; of the one bounded a brings 30 and b 10, and less together. With
    half of that to be gone, the levels that lose the least for it are a = 2 (30 / 10) b."""

    def other(a: float, b: float) -> float:
        return 40 * (1 - 0.75 * a) * (1 - 0.25 * b)

    bound = Bound(-20.0, -40.0, {"a.weight": 30.0, "b.weight": 10.0}, lambda values: -other(*levels(values)))

    def searched(aim: Aim) -> list[tuple[float, float]]:
        found = aimed(seed, aim, lost, lambda a, b: 40 - 10 * a - 30 * b)
        return [each for each, _ in found]

    found = searched(Aim(dense=-40.0, beside=(bound,)))
    assert sum(other(a, b) <= 20.2 for a, b in found) >= 18
    assert sum(other(a, b) <= 20.2 for a, b in searched(Aim(dense=-40.0))) < 16
    lightest = min(lost(a, b) for a, b in found if other(a, b) <= 20.2)
    grid = [(x / 100, y / 100) for x in range(99) for y in range(99)]
    assert lightest < 1.1 * min(lost(a, b) for a, b in grid if other(a, b) <= 20.0)
    gone = [10 * a + 30 * b for a, b in found]
    assert max(gone) - min(gone) > 15  # and along the front too


def test_what_it_says_of_itself_before_the_first_trial() -> None:
    searcher = AdditiveSearcher(space(), 0)
    assert (searcher.startup, searcher.wants_curves, searcher.keeps_bounds, searcher.bounds_beside) == (0, *[True] * 3)


def test_where_no_levels_are_searched_values_are_spread_evenly() -> None:
    rates = SearchSpace((Dimension("training.lr", LogUniform(1e-3, 1e-1)),))
    seen = [Observation(i, {"training.lr": 0.01}, {4: (0.5, 0.5)}, True) for i in range(5)]
    found = [AdditiveSearcher(rates, 3, 2).suggest(trial, seen, [4]) for trial in range(4)]
    assert found == [SobolSearcher(rates, 3).suggest(trial, (), ()) for trial in range(4)]


def test_the_first_trials_and_those_without_results_are_by_the_curves() -> None:
    rate = Dimension("training.lr", LogUniform(1e-3, 1e-1))
    over = space(rate)
    searcher = AdditiveSearcher(over, 3, 4, curves(a=1.0, b=2.0))
    done = [Observation(i, over.sample_trial(1, i), {4: (0.5 + i / 50, 0.5)}, True) for i in range(3)]
    even = SobolSearcher(over, 3)
    for trial, seen in ((0, done), (3, done), (9, done[:2]), (9, [replace(done[0], points={3: (1.0, 1.0)})] * 5)):
        units = over.to_unit(even.suggest(trial, (), ()))
        share = searcher.damages.share(3, trial)
        expected = over.from_unit(searcher.damages.by_curves(units, share))
        assert searcher.suggest(trial, seen, [1, 4]) == expected
    assert searcher.suggest(4, done, [1, 4]) != over.from_unit(searcher.damages.by_curves(units, share))


def test_what_the_metric_is_explained_by() -> None:
    """One, each layer's damage and bend between the places of the grid, what else is searched and its square."""
    searcher = AdditiveSearcher(space(Dimension("training.lr", LogUniform(1e-3, 1e-1))), 3, 4, curves(a=1.0, b=3.0))
    damages = searcher.damages
    units = np.array([[0.0, 1.0, 0.5], [10.25 / 64, 63.5 / 64, 0.75], [1.0, 0.0, 0.0]])
    found = searcher.features(units)

    def between(table: np.ndarray, layer: int, place: float) -> float:
        return float(np.interp(place, np.arange(65), table[layer]))

    for row, (a, b, other) in zip(found, units, strict=True):
        tables = (damages.damage, damages.bend)
        by_layer = [between(table, layer, 64 * unit) for table in tables for layer, unit in enumerate((a, b))]
        assert row == pytest.approx([1.0, *by_layer, other - 0.5, (other - 0.5) ** 2])
