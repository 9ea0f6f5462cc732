"""Scores of groups, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raydistill.compression import rankings
from raydistill.compression.rankings import MENU, Ranking

GROUPS = torch.tensor([[1.0, -3.0], [0.0, 4.0], [-2.0, 2.0]])
GRADIENTS = torch.tensor([[3.0, 1.0], [5.0, -0.5], [1.0, 1.5]])


def test_norms_are_numpys_over_the_groups_size() -> None:
    for score, order in ((rankings.l1, 1), (rankings.l2, 2)):
        assert score(GROUPS).tolist() == pytest.approx(np.linalg.norm(GROUPS.numpy(), order, axis=1) / 2)
    assert rankings.l1(torch.tensor([[-2.0], [1.0]])).tolist() == [2, 1]


def test_taylor_lets_effects_cancel_and_snip_does_not() -> None:
    assert rankings.taylor(GROUPS, GRADIENTS).tolist() == [0, 2, 1]
    assert rankings.snip(GROUPS, GRADIENTS).tolist() == [6, 2, 5]


def test_lamp_is_each_square_over_those_that_are_no_smaller() -> None:
    weight = torch.tensor([[3.0], [-1.0], [2.0], [0.0]])
    assert rankings.lamp(weight).tolist() == pytest.approx([1.0, 1 / 14, 4 / 13, 0.0])
    assert rankings.lamp(GROUPS).tolist() == pytest.approx([10 / 26, 1.0, 8 / 34])
    assert rankings.lamp(torch.zeros(2, 1)).tolist() == [0.0, 0.0]


def test_lamp_makes_layers_of_different_scale_comparable() -> None:
    """One threshold over both prunes the same of each, which by magnitude would all be of the second."""
    torch.manual_seed(0)
    first = torch.randn(50, 1)
    both = [rankings.lamp(first), rankings.lamp(first * 0.01)]
    threshold = torch.cat(both).kthvalue(50).values
    assert [int((scores <= threshold).sum()) for scores in both] == [25, 25]


def test_obd_is_half_the_curvature_times_the_square() -> None:
    assert rankings.obd(GROUPS, GRADIENTS.square()).tolist() == [9.0, 2.0, 6.5]


def test_scores_that_stand_in_the_evidence() -> None:
    evidence = torch.tensor([0.1, 0.9, 0.5])
    assert rankings.movement(GROUPS, GRADIENTS).tolist() == [2, 2.25, 1.25]
    assert rankings.apoz(GROUPS, evidence).argsort().tolist() == [1, 2, 0]  # zero most often goes first
    assert rankings.given(GROUPS, evidence).argsort().tolist() == [0, 2, 1]


def test_random_is_torchs_generator() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(rankings.random(GROUPS), expected)


def test_every_ranking_of_the_menu_can_be_used() -> None:
    assert {name: ranking.fault() for name, ranking in MENU.items()} == dict.fromkeys(MENU, "")


@pytest.mark.parametrize(
    ("ranking", "says"),
    [
        (Ranking("x", rankings.l1, "hearsay"), "has evidence 'hearsay'"),
        (Ranking("x", rankings.given, "apoz"), "must have filters_only=True"),
        (Ranking("x", lambda groups, evidence: groups), r"of 3 groups it gives \(3, 2\)"),
        (Ranking("x", lambda groups, evidence: 1 / 0), r"fails on 3 groups of 2 weights \(ZeroDivisionError"),  # type: ignore[arg-type,return-value]
        (Ranking("x", lambda groups, evidence: [1, 2, 3]), "it gives list"),  # type: ignore[arg-type,return-value]
    ],
)
def test_what_keeps_one_of_ones_own_from_being_used(ranking: Ranking, says: str) -> None:
    import re

    assert re.search(says, ranking.fault())


def test_the_filter_nearest_to_all_others_goes_first() -> None:
    filters = torch.tensor([[0.0, 3.0], [4.0, 0.0], [0.0, 0.0], [0.0, 5.0]])
    scores = rankings.geometric_median(filters)
    # distances 5, 2 and sqrt(41), none to the filter of zeros
    assert scores.tolist() == pytest.approx([7.0, 5.0 + 41**0.5, 0.0, 2.0 + 41**0.5])
