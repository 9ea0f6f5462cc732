"""Searchers: what they draw, that they repeat themselves, and that those that learn have learnt."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest

from raydistill.records import Scalar
from raydistill.search import (
    Choice,
    LogUniform,
    QUniform,
    RandInt,
    SearchSpace,
    Uniform,
    hypervolume,
)
from raydistill.search.observations import Observation
from raydistill.search.searchers import LEARNS, SEARCHERS, SobolSearcher
from tests.search.spaces import space

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
WITHOUT = pytest.mark.skipif(importlib.util.find_spec("botorch") is None, reason="BoTorch is not installed")
QNEHVI = pytest.param("qnehvi", marks=(pytest.mark.slow, WITHOUT))
LEARNT = [("evolution", 90), ("motpe", 60), ("gp", 18), pytest.param("qnehvi", 18, marks=WITHOUT)]
GPS = ("gp", "qnehvi")
STARTUP = {name: {"startup": 4} for name in LEARNS} | {"nsga2": {"startup": 4, "population": 4}}


def make(name: str, seed: int, over: SearchSpace = KINDS):
    return SEARCHERS[name](over, seed, **STARTUP.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(name for name in SEARCHERS if name not in ("motpe", "amc", *GPS)), GP, QNEHVI])
def test_values_are_inside_builtins_and_repeat(name: str) -> None:
    seen = observed(6)
    trials = (7,) if name in GPS else (7, 8, 9)
    for trial in trials:
        values = make(name, 3).suggest(trial, seen, [4])
        assert list(values) == [d.path for d in KINDS.dimensions]
        for dimension, kind in zip(KINDS.dimensions, TYPES, strict=True):
            assert type(values[dimension.path]) is kind
            assert dimension.distribution.contains(values[dimension.path])
        assert make(name, 3).suggest(trial, seen, [4]) == values
    if name not in GPS:
        assert make(name, 4).suggest(7, seen, [4]) != make(name, 3).suggest(7, seen, [4])


@pytest.mark.parametrize("name", [*sorted(LEARNS - {"motpe", *GPS}), GP, QNEHVI])
def test_values_outside_the_bounds_break_no_searcher(name: str) -> None:
    """A warm start need not lie within the space."""
    values = make(name, 3).suggest(7, observed(5, outside=True), [4])
    assert all(d.distribution.contains(values[d.path]) for d in KINDS.dimensions)


@pytest.mark.parametrize("name", [*sorted(LEARNS - {"motpe", "additive", *GPS}), GP, QNEHVI])
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


@pytest.mark.slow
@pytest.mark.parametrize(("name", "trials"), LEARNT)
def test_learners_beat_chance(name: str, trials: int) -> None:
    """What learners add over the even start that they share with Sobol is what they have learnt."""
    learnt = reached(name, 0, trials)
    luck = [reached(other, seed, trials) for other in ("random", "sobol") for seed in range(5)]
    assert learnt > max(luck) + 0.03
