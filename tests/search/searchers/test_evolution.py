"""Evolution: children of the front, moved a little."""

from __future__ import annotations

import pytest

from raydistill.records import Scalar
from raydistill.search import Choice, QUniform, RandInt, Uniform
from raydistill.search.observations import Observation
from raydistill.search.searchers import EvolutionSearcher
from tests.search.spaces import space


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


@pytest.mark.slow
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
