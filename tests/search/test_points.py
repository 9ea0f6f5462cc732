"""Values that were not drawn: typed, moved to the nearest, read from text; members picked along a front."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.records import Scalar
from raydistill.search import (
    Choice,
    Distribution,
    LogUniform,
    QUniform,
    RandInt,
    Uniform,
    from_text,
    middle,
    nearest,
    spread,
    typed,
)

FLOATS, RATE, STEPS, WHOLE = Uniform(0, 2), LogUniform(0.001, 0.1), QUniform(32, 256, 32), RandInt(1, 5)
TENTHS, NUMBERS, WORDS = QUniform(0.1, 0.9, 0.1), Choice((1, 2.5, 4)), Choice(("cosine", "step", True))


@pytest.mark.parametrize(
    ("distribution", "value", "expected"),
    [
        (FLOATS, 1, 1.0), (FLOATS, 2.5, None), (FLOATS, True, None), (FLOATS, "1", None),
        (STEPS, 64.0, 64), (STEPS, 65, None), (TENTHS, 0.30000000000000004, 0.3),
        (WHOLE, 4, 4), (WHOLE, 5, None), (WHOLE, 2.0, None),
        (NUMBERS, 4.0, 4), (NUMBERS, True, None), (WORDS, "step", "step"), (WORDS, True, True), (WORDS, 1, None),
    ],
)  # fmt: skip
def test_typed(distribution: Distribution, value: object, expected: Scalar | None) -> None:
    found = typed(distribution, value)
    assert found == expected
    assert type(found) is type(expected)


def test_middle() -> None:
    assert middle(FLOATS) == 1.0
    assert middle(RATE) == pytest.approx(0.01)
    assert middle(STEPS) == 160, "32 ... 256 are k = 1 ... 8, the upper middle is 5"
    assert middle(TENTHS) == 0.5
    assert middle(WHOLE) == 3
    assert middle(NUMBERS) == 2.5


@pytest.mark.parametrize(
    ("distribution", "value", "expected"),
    [
        (FLOATS, 7, 2.0), (FLOATS, -1, 0.0), (FLOATS, 0.3, 0.3), (RATE, 1.0, 0.1), (FLOATS, "word", None),
        (STEPS, 70, 64), (STEPS, 1, 32), (STEPS, 999, 256), (WHOLE, 9, 4), (WHOLE, 2.6, 3),
        (NUMBERS, 3.5, 4), (NUMBERS, 0, 1), (NUMBERS, "x", None), (WORDS, "cosine", "cosine"), (WORDS, "cos", None),
    ],
)  # fmt: skip
def test_nearest(distribution: Distribution, value: Scalar, expected: Scalar | None) -> None:
    found = nearest(distribution, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("distribution", "text", "expected"),
    [
        (FLOATS, "1", 1.0), (FLOATS, "3.5", 3.5), (FLOATS, "nan", None), (FLOATS, "cosine", None),
        (STEPS, "64", 64), (WHOLE, "3", 3), (WHOLE, "3.0", 3), (NUMBERS, "2.5", 2.5), (NUMBERS, "3", 3),
        (WORDS, "True", True), (WORDS, "step", "step"), (WORDS, "sine", None), (NUMBERS, "True", None),
    ],
)  # fmt: skip
def test_from_text(distribution: Distribution, text: str, expected: Scalar | None) -> None:
    found = from_text(distribution, text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.slow
@pytest.mark.parametrize("distribution", [FLOATS, RATE, STEPS, WHOLE, TENTHS, NUMBERS, WORDS])
@given(seed=st.integers(0, 2**32))
def test_a_drawn_value_comes_back_from_its_text(distribution: Distribution, seed: int) -> None:
    drawn = distribution.sample(np.random.default_rng(seed))
    again = from_text(distribution, str(drawn))
    assert (again, type(again)) == (drawn, type(drawn))
    assert nearest(distribution, drawn) == drawn
    assert typed(distribution, middle(distribution)) == middle(distribution)


def test_a_front_is_thinned_evenly_and_the_next_rank_fills_up() -> None:
    ranks = [0, 0, 0, 0, 0, 1, 1, 1, -1]
    positions = [0.5, 0.1, 0.3, 0.9, 0.7, 0.2, 0.6, 0.4, 0.0]
    along = [1, 2, 0, 4, 3]
    assert spread(ranks, positions, 1) == [0]
    assert spread(ranks, positions, 2) == [1, 3]
    assert spread(ranks, positions, 3) == [1, 0, 3]
    assert spread(ranks, positions, 5) == along
    assert spread(ranks, positions, 6) == [*along, 7]
    assert spread(ranks, positions, 7) == [*along, 5, 6]
    assert spread(ranks, positions, 99) == [*along, 5, 7, 6]
    assert spread([-1], [0.5], 3) == []


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(-1, 3), st.floats(0, 1)), max_size=30), st.integers(1, 40))
def test_no_member_twice_and_never_a_worse_rank_before_a_better(members: list[tuple[int, float]], count: int) -> None:
    ranks, positions = [rank for rank, _ in members], [position for _, position in members]
    taken = spread(ranks, positions, count)
    assert len(taken) == len(set(taken)) == min(count, sum(rank >= 0 for rank in ranks))
    left = [rank for i, rank in enumerate(ranks) if rank >= 0 and i not in taken]
    assert max((ranks[i] for i in taken), default=0) <= min(left, default=99)
