"""Scopes, N:M and rankings beyond Distiller's, against numbers worked out by hand or by another route."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from raydistill.compression.pruners import Moment, NMPruner, RankedPruner
from raydistill.compression.rates import PolicyTime, cosine, cubic, linear, one_shot
from raydistill.compression.scopes import erk_levels, global_masks
from raydistill.errors import ConfigError

NOW = Moment(PolicyTime(3, 0, 4, 1))


def test_global_scope_is_one_threshold_as_torchs_own_global_pruning() -> None:
    torch.manual_seed(0)
    layers = {"a.weight": nn.Linear(20, 30), "b.weight": nn.Conv2d(3, 8, 3)}
    nn.init.normal_(layers["b.weight"].weight, std=0.1)  # smaller than the other: it loses more
    pruner = RankedPruner("p", 0.6, list(layers), scope="global")
    masks = pruner.masks({name: layer.weight for name, layer in layers.items()}, NOW)
    from torch.nn.utils import prune

    count = math.floor(0.6 * (600 + 216))
    prune.global_unstructured(
        [(layer, "weight") for layer in layers.values()], pruning_method=prune.L1Unstructured, amount=count
    )
    for name, layer in layers.items():
        assert torch.equal(masks[name], layer.weight_mask)
    assert sum(int((mask == 0).sum()) for mask in masks.values()) == count


def test_global_scope_leaves_each_weight_its_best_group() -> None:
    masks = global_masks({"small": torch.tensor([0.1, 0.3, 0.2]), "large": torch.arange(1.0, 8.0)}, {}, 0.5)
    assert masks["small"].tolist() == [0, 1, 0]
    assert masks["large"].tolist() == [0, 0, 1, 1, 1, 1, 1]


def test_global_filters_are_compared_by_their_mean_size() -> None:
    weights = {"a.weight": torch.ones(2, 9, 3, 3), "b.weight": torch.full((2, 1, 1, 1), 2.0)}
    masks = RankedPruner("p", 0.25, list(weights), granularity="Filters", scope="global").masks(weights, NOW)
    assert masks["a.weight"].mean((1, 2, 3)).tolist() == [0, 1], "the sum of a filter of a is 81, its mean 1"


def test_erk_levels_by_hand() -> None:
    # (10, 10): 20/100 = 0.2 per weight; (2, 2): 4/4 = 1. Keep 52 of 104: at scale s, 20 s + 4 s = 52 would give the
    # small one a density above 1, so it stays dense and the large one keeps 48 of 100.
    levels = erk_levels({"large": (10, 10), "small": (2, 2)}, 0.5)
    assert levels == {"large": pytest.approx(0.52), "small": 0.0}


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 40), min_size=2, max_size=4), min_size=1, max_size=6),
    st.floats(0.0, 0.999),
)
def test_erk_levels_are_fractions_and_hold_in_total(shapes: list[list[int]], level: float) -> None:
    named = {str(index): tuple(shape) for index, shape in enumerate(shapes)}
    levels = erk_levels(named, level)
    sizes = {name: math.prod(shape) for name, shape in named.items()}
    assert all(-1e-9 <= value <= 1.0 for value in levels.values())
    assert sum(levels[name] * size for name, size in sizes.items()) == pytest.approx(
        math.floor(level * sum(sizes.values()) + 1e-9), abs=1e-6
    )


def test_two_of_every_four_inputs_stay() -> None:
    weight = torch.tensor([[1.0, -4.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0]])
    mask = NMPruner("p", ["w"]).mask("w", weight, NOW.when)
    assert mask.tolist() == [[0, 1, 0, 1, 1, 1, 0, 0]], "ties: the first ones stay"
    torch.manual_seed(0)
    conv = torch.randn(4, 8, 3, 3)
    mask = NMPruner("p", ["w"], n=1, m=4).mask("w", conv, NOW.when)
    for f in range(4):
        for y in range(3):
            for x in range(3):
                for start in (0, 4):
                    part = mask[f, start : start + 4, y, x]
                    assert part.sum() == 1
                    assert part.argmax() == conv[f, start : start + 4, y, x].abs().argmax()
    assert "m = 4 does not divide its 6 inputs" in NMPruner("p", ["w"]).fault_of("w", torch.ones(2, 6))


@pytest.mark.parametrize(
    ("ranking", "evidence", "kept"),
    [
        ("taylor", [[1.0, 1.0], [1.0, 0.1], [0.0, 0.0]], [1, 0, 0]),  # |sum w g|: 3, 0.1, 0 by filters of two
        ("snip", [[1.0, 1.0], [1.0, 0.1], [0.0, 0.0]], [0, 1, 0]),  # sum |w g|: 3, 3.9, 0
        ("movement", [[0.0, 0.1], [-5.0, 1.0], [2.0, 0.0]], [0, 0, 1]),
    ],
)
def test_rankings_by_hand(ranking: str, evidence: list, kept: list[int]) -> None:
    weight = torch.tensor([[1.0, 2.0], [2.0, -19.0], [50.0, 60.0]])
    pruner = RankedPruner("p", 0.67, ["w"], ranking=ranking, granularity="Rows")
    moment = Moment(NOW.when, {}, {"w": torch.tensor(evidence)})
    assert pruner.masks({"w": weight}, moment)["w"].mean(1).tolist() == kept


def test_apoz_prunes_what_is_zero_most_often_and_mean_what_is_weakest() -> None:
    weight, statistic = torch.randn(3, 1, 1, 1), torch.tensor([0.1, 0.9, 0.5])
    for ranking, kept in (("apoz", [1, 0, 1]), ("mean_activation", [0, 1, 1]), ("bn_scale", [0, 1, 1])):
        pruner = RankedPruner("p", 0.34, ["w"], ranking=ranking, granularity="Filters")
        masks = pruner.masks({"w": weight}, Moment(NOW.when, {}, {"w": statistic}))
        assert masks["w"].flatten().tolist() == kept


@pytest.mark.parametrize(
    ("rate", "levels"),
    [
        (linear, [0.2, 0.4, 0.6, 0.8]),
        (cosine, [0.2, 0.35, 0.65, 0.8]),
        (one_shot, [0.8, 0.8, 0.8, 0.8]),
        (cubic, [0.2, 0.8 - 0.6 * 8 / 27, 0.8 - 0.6 / 27, 0.8]),
    ],
)
def test_rates_by_hand(rate, levels: list[float]) -> None:
    curve = rate(0.2, 0.8)
    assert [curve(PolicyTime(epoch, 10, 17, 2)) for epoch in (10, 12, 14, 16)] == pytest.approx(levels)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rate": "cubik"}, "rate: must be one of cubic, linear, cosine, exponential, one_shot, got 'cubik'; did you"),
        ({"ranking": "size"}, "ranking: must be one of magnitude"),
        ({"scope": "all"}, "scope: must be one of layer, global, erk"),
        ({"scope": "erk", "group_dependency": "Leader"}, "scope: must be layer"),
        ({"granularity": "Blocks"}, "block_shape: is missing"),
        ({"group_dependency": "leader"}, "group_dependency: must be Leader"),
    ],
)
def test_wrong_compositions_are_one_line(change: dict, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RankedPruner("p", 0.5, ["w"], **change)
    assert str(caught.value).startswith(says)
