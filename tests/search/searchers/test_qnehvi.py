"""Bayesian optimisation with noise: what it learns, what it knows beforehand, what it leaves as it was."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.errors import ConfigError
from raydistill.records import Scalar
from raydistill.search import Choice, Dimension, LogUniform, QUniform, RandInt, SearchSpace, Uniform, hypervolume
from raydistill.search.observations import Observation
from raydistill.search.searchers import Aim, PlacedSearcher, QNEHVISearcher, SobolSearcher
from raydistill.search.searchers.base import Bound
from tests.search.spaces import space

Truth = Callable[[Mapping[str, Scalar]], tuple[float, ...]]

if importlib.util.find_spec("botorch") is None:
    pytest.skip("BoTorch is not installed", allow_module_level=True)

NAMES = ("a.weight", "b.weight")
SIZES = {"a.weight": 0.25, "b.weight": 0.75}
LAYERS = SearchSpace(
    tuple(Dimension(f"per_layer.{name}.final_sparsity", Uniform(0.0, 0.98), name, "final_sparsity") for name in NAMES)
)
CURVES = {name: [(v, factor * v**2) for v in (0.3, 0.6, 0.9)] for name, factor in zip(NAMES, (1.0, 2.0), strict=True)}
MIXED = space(
    Uniform(0.1, 0.9), LogUniform(1e-4, 1e-1), QUniform(32, 256, 32), RandInt(-2, 4), Choice(("sgd", "adam", "lion")),
    Choice((True, False)),
)  # fmt: skip


def levels(values: Mapping[str, Scalar]) -> tuple[float, float]:
    a, b = (float(values[d.path]) for d in LAYERS.dimensions)
    return a, b


def brought(values: Mapping[str, Scalar]) -> float:
    a, b = levels(values)
    return 0.25 * a + 0.75 * b


def lost(values: Mapping[str, Scalar]) -> float:
    a, b = levels(values)
    return 0.05 * a**2 + 0.1 * b**2


def pruned(values: Mapping[str, Scalar]) -> tuple[float, float]:
    return 0.9 - lost(values), brought(values)


def searched(searcher: Any, truth: Truth, trials: int, seen: Sequence[Observation] = ()) -> list[Observation]:
    seen = [*seen]
    for trial in range(len(seen), trials):
        values = searcher.suggest(trial, seen, [1])
        seen.append(Observation(trial, values, {1: truth(values)}, True))
    return seen


def peaks(values: Mapping[str, Scalar]) -> tuple[float, float]:
    """Two figures that want different values of the first, and one of the others that neither shows by itself."""
    first, *others = (float(value) for value in values.values())
    off = sum((value - 0.3) ** 2 for value in others)
    return 1 - first**2 - off, 1 - (1 - first) ** 2 - off


@pytest.mark.slow
def test_it_finds_more_than_an_even_spread() -> None:
    over = space(*[Uniform(0.0, 1.0)] * 4)

    def volume(searcher: Any) -> float:
        return hypervolume([o.points[1] for o in searched(searcher, peaks, 10)], ["max", "max"], [0.0, 0.0])

    found = [volume(QNEHVISearcher(over, seed, startup=5)) for seed in range(2)]
    even = [volume(SobolSearcher(over, seed)) for seed in range(2)]
    assert all(more > less for more, less in zip(found, even, strict=True))
    assert sum(found) > sum(even) + 0.2


@pytest.mark.slow
def test_an_answer_is_of_what_was_seen_alone_and_leaves_the_libraries_as_they_were() -> None:
    import torch

    seen = searched(QNEHVISearcher(LAYERS, 3, 4, CURVES, SIZES), pruned, 4)
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float32)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        once = QNEHVISearcher(LAYERS, 3, 4, CURVES, SIZES)
        first = once.suggest(6, seen, [1])
    assert said == []
    assert torch.equal(torch.get_rng_state(), before)
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, torch.float32)
    torch.manual_seed(6)
    again = QNEHVISearcher(LAYERS, 3, 4).with_curves(CURVES, SIZES, Aim())
    assert again.suggest(6, list(seen), [1]) == once.suggest(6, seen, [1]) == first
    assert once.suggest(7, seen, [1]) != first
    assert QNEHVISearcher(LAYERS, 4, 4, CURVES, SIZES).suggest(6, seen, [1]) != first


@pytest.mark.slow
def test_trials_that_run_are_not_proposed_once_more() -> None:
    searcher = QNEHVISearcher(LAYERS, 3, 4, CURVES, SIZES)
    seen = searched(searcher, pruned, 6)
    for trial in range(6, 9):
        seen.append(Observation(trial, searcher.suggest(trial, seen, [1])))
    totals = sorted(brought(o.values) for o in seen[6:])
    assert min(np.diff(totals)) > 0.01
    alone = searcher.suggest(8, seen[:6], [1])
    assert alone != seen[8].values


@pytest.mark.slow
def test_layers_curves_say_where_to_look_before_trials_do() -> None:
    """b costs twice as much by its curve, and brings three times as much: the best levels have 2 a / 0.25 = 4 b / 0.75.
    Without curves the same trials do not say that."""
    seen = searched(QNEHVISearcher(LAYERS, 0, 4, CURVES, SIZES), pruned, 4)

    def off(searcher: QNEHVISearcher) -> float:
        """How much more is lost than by the best levels that bring as much."""
        found = [searcher.suggest(trial, seen, [1]) for trial in range(4, 7)]
        b = np.linspace(0.0, 0.98, 400)
        ways = []
        for values in found:
            a = (brought(values) - 0.75 * b) / 0.25
            inside = (a >= 0.0) & (a <= 0.98)
            ways.append(lost(values) - (0.05 * a**2 + 0.1 * b**2)[inside].min())
        return float(np.mean(ways))

    assert off(QNEHVISearcher(LAYERS, 0, 4, CURVES, SIZES)) < 0.001
    wrong = {"a.weight": CURVES["b.weight"], "b.weight": [(v, 0.02 * v**2) for v in (0.3, 0.6, 0.9)]}
    assert off(QNEHVISearcher(LAYERS, 0, 4, wrong, SIZES)) > 0.001


@pytest.mark.slow
def test_bounds_are_where_it_searches() -> None:
    """Half is to be brought, and no more than 0.04 lost: between the two lies but a small part of the front."""
    aim = Aim(metric=0.86, figure=0.5, dense=0.0, foreseen=brought)
    found = searched(QNEHVISearcher(LAYERS, 0, 4, CURVES, SIZES, aim), pruned, 10)[4:]
    assert sum(brought(o.values) > 0.49 and lost(o.values) < 0.05 for o in found) >= 4
    free = searched(QNEHVISearcher(LAYERS, 0, 4, CURVES, SIZES), pruned, 10)[4:]
    assert sum(brought(o.values) > 0.49 and lost(o.values) < 0.05 for o in free) < 3


@pytest.mark.slow
def test_a_bound_on_another_figure_is_kept_and_one_that_nothing_keeps_is_approached() -> None:
    """Beside what is optimised, of which b brings more, a figure of which a brings nearly all and less beside b."""

    def other(values: Mapping[str, Scalar]) -> float:
        a, b = levels(values)
        return 1.0 - (1.0 - 0.9 * a) * (1.0 - 0.1 * b)

    bound = Bound(0.6, 0.0, {"a.weight": 0.9, "b.weight": 0.1}, other)
    found = searched(QNEHVISearcher(LAYERS, 1, 4, CURVES, SIZES, Aim(beside=(bound,))), pruned, 8)[4:]
    assert sum(other(o.values) >= 0.59 for o in found) >= 3
    never = Aim(metric=0.95, figure=0.99)
    assert all(brought(o.values) > 0.9 for o in searched(QNEHVISearcher(LAYERS, 1, 4, CURVES, SIZES, never), pruned, 6))


@pytest.mark.slow
def test_a_figure_that_is_not_what_layers_bring_is_learned() -> None:
    """Of the sizes that it is told it should want levels as high as can be; the figure is the best at 0.3."""

    def truth(values: Mapping[str, Scalar]) -> tuple[float, float]:
        a, b = levels(values)
        return 0.5, 1.0 - abs(a - 0.3) - abs(b - 0.3)

    found = searched(QNEHVISearcher(LAYERS, 1, 5, None, SIZES), truth, 11)
    assert max(o.points[1][1] for o in found) > 0.9


@pytest.mark.slow
def test_points_of_a_small_space_are_tried_once_each() -> None:
    over = space(Choice(("a", "b", "c")), RandInt(0, 2), Choice((True, False)))
    searcher = QNEHVISearcher(over, 0, startup=4)

    def truth(values: Mapping[str, Scalar]) -> tuple[float]:
        return (float(over.to_unit(values).sum()),)

    seen = searched(searcher, truth, 12)
    assert len({tuple(o.values.values()) for o in seen}) == 12
    assert searcher.suggest(12, seen, [1]) is None


NUMBERS = st.one_of(st.floats(-1e3, 1e3), st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf]))


@st.composite
def sweeps(draw: st.DrawFn) -> tuple[SearchSpace, list[Observation]]:
    """Of one to all dimensions and one to three objectives: trials that ended, run or failed, some with equal values or
    with the same results."""
    chosen = draw(st.lists(st.sampled_from(MIXED.dimensions), min_size=1, max_size=6, unique=True))
    over, objectives = SearchSpace(tuple(chosen)), draw(st.integers(1, 3))
    same = draw(st.none() | st.just(tuple([1.0] * objectives)))
    seen = []
    for trial in range(draw(st.integers(0, 7))):
        values = over.sample_trial(draw(st.integers(0, 4)), 0)
        point = same or tuple(draw(NUMBERS) for _ in range(objectives))
        points = {1: point} if draw(st.integers(0, 4)) else {}
        seen.append(Observation(trial, values, points, bool(points) or draw(st.booleans())))
    return over, seen


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(sweep=sweeps())
def test_whatever_trials_come_to_something_is_proposed(sweep: tuple[SearchSpace, list[Observation]]) -> None:
    over, seen = sweep
    values = QNEHVISearcher(over, 1, startup=2).suggest(len(seen), seen, [1])
    if values is not None:
        assert all(d.distribution.contains(values[d.path]) for d in over.dimensions)
    else:
        assert all(isinstance(d.distribution, Choice | RandInt | QUniform) for d in over.dimensions)


@pytest.mark.slow
def test_of_many_trials_the_best_ranks_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    from raydistill.search.searchers import qnehvi

    monkeypatch.setattr(qnehvi, "_MOST", 6)
    rng = np.random.default_rng(0)
    over = space(Uniform(0.0, 1.0), Uniform(0.0, 1.0))
    bad = [Observation(i, over.sample_trial(0, i), {1: (-5.0 - i, -5.0 - i)}, True) for i in range(6)]
    good = [Observation(6 + i, v := over.sample_trial(1, i), {1: (peaks(v))}, True) for i in range(6)]
    mixed = [replace(o, trial=i) for i, o in enumerate(rng.permutation([*bad, *good]))]
    alone = [o for o in mixed if o.points[1][0] > -5.0]
    searcher = QNEHVISearcher(over, 0, startup=4)
    assert searcher.suggest(12, mixed, [1]) == searcher.suggest(12, alone, [1])


def test_before_there_is_a_model_it_begins_by_the_curves_or_evenly() -> None:
    even = SobolSearcher(LAYERS, 2)
    assert QNEHVISearcher(LAYERS, 2, 4).suggest(1, (), [1]) == even.suggest(1, (), ())
    by_curves = QNEHVISearcher(LAYERS, 2, 4, CURVES, SIZES)
    units = LAYERS.to_unit(even.suggest(1, (), ()))
    damages = by_curves._damages
    assert by_curves.suggest(1, (), [1]) == LAYERS.from_unit(damages.by_curves(units, damages.share(2, 1)))
    assert (by_curves.startup, QNEHVISearcher(MIXED, 0, 7).startup) == (0, 7)


def test_it_keeps_bounds_itself_once_it_is_told_of_them() -> None:
    """Elsewhere what breaks one has to be told to it as worse; behind placed trials it is the same."""
    searcher = QNEHVISearcher(LAYERS, 0)
    assert (searcher.takes_curves, searcher.wants_curves) == (True, False)
    for before in (searcher, PlacedSearcher(searcher, LAYERS, 0, 4)):
        told = before.with_curves(CURVES, SIZES, Aim())
        assert (before.keeps_bounds, before.bounds_beside, told.keeps_bounds, told.bounds_beside) == (
            False, False, True, True,
        )  # fmt: skip


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"searcher: qnehvi needs BoTorch.*pip install 'raydistill\[botorch\]'"):
        QNEHVISearcher(LAYERS, 0)
