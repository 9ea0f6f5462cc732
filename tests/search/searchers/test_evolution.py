"""Evolution: children of the front, moved a little."""

from __future__ import annotations

from collections import Counter

import numpy as np
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


def children(over, searcher: EvolutionSearcher, parents: list[list[Scalar]], count: int) -> list[list[Scalar]]:  # type: ignore[no-untyped-def]
    """Of parents on one front, in the order of its first objective."""
    seen = [
        Observation(i, dict(zip((d.path for d in over.dimensions), parent, strict=True)), {1: (i, -i)}, True)
        for i, parent in enumerate(parents)
    ]
    return [list(searcher.suggest(trial, seen, [1]).values()) for trial in range(len(parents), len(parents) + count)]


def test_a_child_takes_its_values_of_two_neighbours_on_the_front() -> None:
    over = space(*[Uniform(0.0, 1.0)] * 6)
    searcher = EvolutionSearcher(over, 0, startup=3, step=1e-6)
    mixed = {
        frozenset(round(float(value), 2) for value in child)
        for child in children(over, searcher, [[0.25] * 6, [0.5] * 6, [0.75] * 6], 60)
    }
    assert mixed >= {frozenset(each) for each in ((0.25,), (0.75,), (0.25, 0.5), (0.5, 0.75))}  # the ends have one
    assert not any({0.25, 0.75} <= values for values in mixed)


def test_about_half_of_a_childs_values_are_moved_by_a_step() -> None:
    """Of four one surely, and of the others half: 0.625 of all. At an end they are reflected."""
    over = space(*[Uniform(0.0, 1.0)] * 4)
    searcher = EvolutionSearcher(over, 1, startup=1, step=0.05)
    found = np.array(children(over, searcher, [[0.5, 0.5, 0.0, 1.0]], 200), dtype=float)
    moved = found != [0.5, 0.5, 0.0, 1.0]
    assert moved.any(axis=1).all()
    assert moved.mean(axis=0) == pytest.approx([0.625] * 4, abs=0.12)
    assert (found[:, :2][moved[:, :2]] - 0.5).std() == pytest.approx(0.05, abs=0.008)
    assert found[:, 2][moved[:, 2]].mean() == pytest.approx(0.05 * np.sqrt(2 / np.pi), abs=0.01)
    assert 1.0 - found[:, 3][moved[:, 3]].mean() == pytest.approx(0.05 * np.sqrt(2 / np.pi), abs=0.01)


def test_whole_numbers_move_by_at_least_one_of_them() -> None:
    """A step of a third of the range, from the middle of three: it leaves that with 0.62 of 0.625."""
    over = space(RandInt(0, 3), QUniform(0.1, 0.3, 0.1), RandInt(0, 3), QUniform(0.1, 0.3, 0.1))
    searcher = EvolutionSearcher(over, 1, startup=1, step=0.01)
    found = children(over, searcher, [[1, 0.2, 1, 0.2]], 120)
    for column in zip(*found, strict=True):
        assert len(set(column)) == 3
        assert np.mean([value not in (1, 0.2) for value in column]) == pytest.approx(0.39, abs=0.13)


def test_of_many_whole_numbers_a_neighbour_is_meant() -> None:
    """Ten values, a step of a tenth: the next but two is three steps away."""
    over = space(RandInt(0, 10), QUniform(0.1, 1.0, 0.1))
    found = np.array(children(over, EvolutionSearcher(over, 1, startup=1, step=0.01), [[5, 0.6]], 60), dtype=float)
    for away in (np.abs(found[:, 0] - 5), np.abs(found[:, 1] - 0.6) * 10):
        assert (away > 0.5).mean() > 0.3
        assert (away > 3.5).mean() < 0.05


def test_a_switched_option_is_any_other_one() -> None:
    over = space(Choice(("a", "b", "c", "d")), Choice((1, 2)), Choice((True,)))
    found = children(over, EvolutionSearcher(over, 1, startup=1), [["c", 2, True]], 200)
    words = Counter(str(child[0]) for child in found)
    assert set(words) == set("abcd")
    assert min(words[word] for word in "abd") > 0.6 * max(words[word] for word in "abd")
    assert words["c"] / 200 == pytest.approx((2 / 3) ** 2, abs=0.12)  # not by chance, and not surely


def test_the_best_have_children_and_what_was_tried_is_not_tried_again() -> None:
    over = space(Choice(tuple(range(40))), Choice(tuple(range(40))))
    paths = [d.path for d in over.dimensions]
    seen = [Observation(i, dict.fromkeys(paths, i), {1: (-abs(i - 3), 0)}, True) for i in range(10)]
    searcher = EvolutionSearcher(over, 0, startup=10, parents=1)
    found = [tuple(searcher.suggest(trial, seen, [1]).values()) for trial in range(10, 60)]
    assert all(child != (3, 3) for child in found)
    assert sum(3 in child for child in found) > 10
    coin = space(Choice((0, 1)))
    told = [Observation(0, {"a.d0": 0}, {1: (1.0,)}, True), Observation(1, {"a.d0": 1})]
    assert EvolutionSearcher(coin, 0, startup=1).suggest(2, told, [1]) in ({"a.d0": 0}, {"a.d0": 1})  # all is known
    assert EvolutionSearcher(coin, 0, startup=1).suggest(2, told[:1], [1]) == {"a.d0": 1}
