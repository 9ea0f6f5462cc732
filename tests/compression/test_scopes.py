"""Which groups of several weights stay."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.compression import scopes
from raydistill.compression.scopes import MENU, Scope

SCORES = {"a": torch.tensor([0.1, 0.2, 0.3, 0.4]), "b": torch.tensor([5.0, 6.0, 7.0, 8.0])}
SHAPES = {"a": (4, 2), "b": (4, 2)}


def test_by_layer_each_loses_its_own_and_globally_the_smallest_of_all_go() -> None:
    assert {n: m.tolist() for n, m in scopes.layer_masks(SCORES, SHAPES, 0.5).items()} == {
        "a": [0, 0, 1, 1],
        "b": [0, 0, 1, 1],
    }
    # the four smallest are all of a; its best stays, so that the network is not cut
    assert {n: m.tolist() for n, m in scopes.global_masks(SCORES, SHAPES, 0.5).items()} == {
        "a": [0, 0, 0, 1],
        "b": [1, 1, 1, 1],
    }


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3)), min_size=1, max_size=5),
    st.floats(0.0, 0.99),
)
def test_erk_densities_go_by_sum_over_product_and_the_level_holds_in_total(
    shapes: list[tuple[int, ...]], level: float
) -> None:
    named = {str(index): shape for index, shape in enumerate(shapes)}
    levels = scopes.erk_levels(named, level)
    sizes = {name: math.prod(shape) for name, shape in named.items()}
    pruned = sum(levels[name] * size for name, size in sizes.items())
    assert pruned == pytest.approx(level * sum(sizes.values()), abs=1.0)
    sparse = {name: (1 - levels[name]) / (sum(named[name]) / sizes[name]) for name in named if levels[name] > 0}
    assert max(sparse.values(), default=0) == pytest.approx(min(sparse.values(), default=0))


def test_every_scope_of_the_menu_can_be_used() -> None:
    assert {name: scope.fault() for name, scope in MENU.items()} == dict.fromkeys(MENU, "")


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        (lambda scores, shapes, level: {"a": scores["a"]}, "must give one tensor a weight"),
        (lambda scores, shapes, level: dict(scores), "must give 1 for what is kept and 0"),
        (lambda scores, shapes, level: scores["c"], "fails on two weights of 4 and 6 groups (KeyError"),
    ],
)
def test_what_keeps_one_of_ones_own_from_being_used(keep: object, says: str) -> None:
    assert says in Scope("x", keep).fault()  # type: ignore[arg-type]
