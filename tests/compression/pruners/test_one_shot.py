"""What pruners by calibration data have in common: their arguments, and what they do without evidence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from raydistill.compression.pruners import MENU, Moment, OneShotPruner, SparseGPTPruner, WandaPruner
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError

NOW = PolicyTime(0, 0, 1, 1)
KINDS = [name for name, pruner in MENU.items() if issubclass(pruner, OneShotPruner)]


def made(kind: str, **arguments: Any) -> OneShotPruner:
    return MENU[kind]("p", **arguments)  # type: ignore[return-value]


def test_both_are_on_the_menu_and_go_layer_by_layer() -> None:
    assert KINDS == ["WandaPruner", "SparseGPTPruner"]
    assert all(MENU[kind].layer_by_layer for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "levels: must map weight names to values"),
        ({"levels": {"w": 50}}, "levels.w: must be a fraction in [0, 1), got 50; did you mean 0.5?"),
        ({"levels": {"w": 0.5}, "n": 2}, "n: cannot stand beside levels, got 2; keep levels, or weights with"),
        ({"weights": ["w"]}, "final_sparsity: is missing beside weights; as in final_sparsity: 0.5, or n: 2"),
        ({"weights": ["w"], "n": 2}, "m: is missing beside weights"),
        ({"final_sparsity": 0.5}, "weights: is missing beside final_sparsity"),
        ({"weights": ["w"], "final_sparsity": 1.0}, "final_sparsity: must be a fraction in [0, 1)"),
        ({"weights": ["w"], "final_sparsity": 0.5, "n": 2, "m": 4}, "n: cannot stand beside final_sparsity, got 2"),
        ({"n": 2, "m": 4}, "weights: is missing beside n"),
        ({"weights": ["w"], "n": 5, "m": 4}, "n: must not be above m, 4, got 5"),
        ({"weights": ["w"], "n": 0, "m": 4}, "n: must be a whole number from 1 up, got 0"),
        (
            {"levels": {"w": 0.5}, "allocation": "owk"},
            "allocation: must be one of uniform, owl, got 'owk'; did you",
        ),
        ({"weights": ["w"], "n": 2, "m": 4, "allocation": "owl"}, "allocation: cannot stand beside n and m"),
        ({"levels": {"w": 0.5}, "outlier": 0}, "outlier: must be at least 1"),
        ({"levels": {"w": 0.5}, "spread": 2}, "spread: must be from 0 to 1"),
    ],
)
def test_arguments_that_cannot_be(kind: str, arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        made(kind, **arguments)
    assert expected in str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_cannot_be_pruned_so(kind: str) -> None:
    pattern = made(kind, weights=["w"], n=2, m=4)
    assert pattern.fault_of("w", torch.ones(4, 6)) == "m = 4 does not divide its 6 inputs"
    assert pattern.fault_of("w", torch.ones(8)) == "needs a weight of 2 or more dimensions, this one has 1"
    assert pattern.fault_of("w", torch.ones(3, 8, 3, 3)) == ""
    alone = made(kind, levels={"w": 0.5}, allocation="owl")
    assert "the only one" in alone.faults_together({"w": torch.ones(2, 2)})[0][1]
    assert alone.faults_together({"w": torch.ones(2, 2), "v": torch.ones(2, 2)}) == []


@pytest.mark.parametrize("kind", KINDS)
def test_without_evidence_each_row_is_ranked_by_magnitude(kind: str) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 8)
    found = made(kind, weights=["w"], n=2, m=4).by_magnitude().masks({"w": weight}, Moment(NOW))["w"]
    expected = torch.zeros(12, 4).scatter_(1, weight.abs().reshape(12, 4).topk(2).indices, 1.0)
    assert torch.equal(found, expected.reshape(6, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_one_level_for_all_is_that_of_each(kind: str) -> None:
    found = made(kind, weights=["w", "v"], final_sparsity=0.6)
    assert found.levels == {"w": 0.6, "v": 0.6}
    assert found.pattern is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_may_have_levels_of_its_own(kind: str) -> None:
    other = made(kind, levels={"w": 0.5, "v": 0.5}, allocation="owl", spread=0.2).with_levels({"w": 0.25, "v": 0.75})
    assert other.level("w", NOW) == 0.25
    assert (other.allocation, other.spread) == ("owl", 0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_levels_that_were_allocated_are_its_state(kind: str) -> None:
    pruner = made(kind, levels={"w": 0.5, "v": 0.5}, allocation="owl")
    pruner.allocated = {"w": 0.4, "v": 0.6}
    again = made(kind, levels={"w": 0.5, "v": 0.5}, allocation="owl")
    again.load_state_dict(pruner.state_dict())
    assert [again.level(name, NOW) for name in ("w", "v")] == [0.4, 0.6]
    assert pruner.fraction("w", torch.ones(10, 10), NOW) == 0.4


def test_wanda_leaves_the_weights_that_stay_and_sparse_gpt_does_not() -> None:
    torch.manual_seed(0)
    weight, read = torch.randn(4, 6), torch.randn(50, 1) + 0.3 * torch.randn(50, 6)
    assert WandaPruner("p", {"w": 0.5}).settled("w", weight, read.square().sum(0, keepdim=True), None)[1] is None
    mask, values = SparseGPTPruner("p", {"w": 0.5}).settled("w", weight, (read.T @ read).unsqueeze(0), None)
    assert values is not None
    assert bool(((values != 0) == (mask != 0)).all())
    assert not torch.allclose(values, weight * mask)
