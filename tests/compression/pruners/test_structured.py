"""Structured pruners by themselves: leaders, groups of structures, noise and chance, against hand-worked numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression import check
from raydistill.compression.pruners import MENU, Moment
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError
from raydistill.schedule import parse_schedule

NOW = Moment(PolicyTime(0, 0, 1, 1))


def filters(*sizes: float) -> Tensor:
    """A conv weight whose filters hold these values."""
    return torch.tensor(sizes, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 2, 3, 3).contiguous()


def kept(mask: Tensor) -> list[int]:
    return (mask.flatten(1).amax(1) != 0).int().tolist()


def l1(**change: object):
    arguments = {"group_type": "Filters", "desired_sparsity": 0.5, "weights": ["a", "b"], **change}
    return MENU["L1RankedStructureParameterPruner"]("p", **arguments)


def test_the_leader_decides_for_all() -> None:
    weights = {"a": filters(4, 1, 3, 2), "b": filters(1, 2, 3, 4)}
    alone = l1().masks(weights, NOW)
    assert (kept(alone["a"]), kept(alone["b"])) == ([1, 0, 1, 0], [0, 0, 1, 1])
    led = l1(group_dependency="Leader").masks(weights, NOW)
    assert kept(led["a"]) == kept(led["b"]) == [1, 0, 1, 0]
    other = l1(group_dependency="Leader", weights=["b", "a"]).masks({"b": weights["b"], "a": weights["a"]}, NOW)
    assert kept(other["a"]) == kept(other["b"]) == [0, 0, 1, 1]


def test_a_leader_of_another_width_or_that_is_not_there_is_one_line() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3))
    body = {"class": "L1RankedStructureParameterPruner", "group_type": "Filters", "desired_sparsity": 0.5}
    policies = [{"pruner": {"instance_name": "p"}, "epochs": [0]}]

    def faults(weights: list[str]) -> str:
        pruner = {**body, "group_dependency": "Leader", "weights": weights}
        with pytest.raises(ConfigError) as caught:
            check(parse_schedule({"pruners": {"p": pruner}, "policies": policies}, "s"), model, strict=False)
        return str(caught.value)

    assert "has 6 groups, its leader 0.weight has 4, got '1.weight'" in faults(["0.weight", "1.weight"])
    assert "the model has no such weight, got '9.weight'" in faults(["9.weight", "1.weight"])


def test_adjacent_structures_go_together() -> None:
    mask = l1(group_size=2, weights=["a"]).masks({"a": filters(5, 1, 2, 2, 9, 9)}, NOW)["a"]
    assert kept(mask) == [1, 1, 0, 0, 1, 1]  # means 3, 2, 9: half of three groups floors to one
    assert "group_size 4 does not divide its 6 groups" in l1(group_size=4, weights=["a"]).fault_of(
        "a", filters(*range(6))
    )


def test_norms_of_rows_and_channels_are_of_the_inputs_of_a_matrix() -> None:
    matrix = torch.tensor([[1.0, -9.0, 2.0], [1.0, 9.0, 3.0]])
    for group_type in ("Rows", "Channels"):
        mask = l1(group_type=group_type, desired_sparsity=0.34, weights=["a"]).masks({"a": matrix}, NOW)["a"]
        assert mask.tolist() == [[0, 1, 1], [0, 1, 1]]


def test_l1_and_l2_differ_where_they_should() -> None:
    spiky, even = torch.tensor([3.0, 0.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 1.0, 1.0])
    weight = torch.stack([spiky, even]).view(2, 1, 2, 2)  # L1: 3 and 4; L2: 3 and 2
    found = {
        name: kept(
            MENU[f"{name}RankedStructureParameterPruner"]("p", "Filters", 0.5, ["a"]).masks({"a": weight}, NOW)["a"]
        )
        for name in ("L1", "L2")
    }
    assert found == {"L1": [0, 1], "L2": [1, 0]}


@pytest.mark.slow
def test_noise_shuffles_the_ranking_as_often_as_it_says() -> None:
    torch.manual_seed(0)
    weight = {"a": filters(*range(1, 11))}
    pruner = l1(noise=0.5, weights=["a"])
    right = sum(kept(pruner.masks(weight, NOW)["a"]) == [0] * 5 + [1] * 5 for _ in range(400))
    assert right == pytest.approx(200, abs=40), "half of 400 decisions, 4 deviations"


@pytest.mark.slow
def test_random_levels_are_uniform_over_their_range() -> None:
    torch.manual_seed(0)
    pruner = MENU["RandomLevelStructureParameterPruner"]("p", "Filters", [0.2, 0.6], ["a"])
    weight = {"a": filters(*range(1, 101))}
    counts = [kept(pruner.masks(weight, NOW)["a"]).count(0) for _ in range(300)]
    assert 20 <= min(counts) < 25
    assert 55 < max(counts) <= 60
    assert sum(counts) / 300 == pytest.approx(39.5, abs=2.7)  # floors: half a filter less than 40; 4 deviations
    mask = kept(pruner.masks(weight, NOW)["a"])
    assert mask == sorted(mask), "the smallest ones go"
    with pytest.raises(ConfigError, match="sparsity_range: has its ends swapped"):
        MENU["RandomLevelStructureParameterPruner"]("p", "Filters", [0.6, 0.2], ["a"])


@pytest.mark.slow
def test_random_ranking_takes_every_filter_equally_often() -> None:
    torch.manual_seed(0)
    pruner = MENU["RandomRankedFilterPruner"]("p", "Filters", 0.25, ["a"])
    times = torch.zeros(8)
    for _ in range(400):
        times += 1 - torch.tensor(kept(pruner.masks({"a": filters(*range(8))}, NOW)["a"]))
    assert times.sum() == 800
    assert float((times - 100).abs().max()) < 40  # binomial: 400 draws at 1/4, deviation 8.7


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"group_type": "2D"}, "group_type: must be one of Filters, 3D, Channels, Rows, Blocks"),
        ({"group_type": "Blocks"}, "block_shape: is missing"),
        ({"group_type": "Blocks", "kwargs": {"block_shap": [1, 2, 1, 1]}}, "kwargs.block_shap: unknown argument"),
        ({"desired_sparsity": 1}, "desired_sparsity: must be a fraction in [0, 1)"),
        ({"group_size": 0}, "group_size: must be a whole number from 1 up"),
        ({"noise": 2}, "noise: must be from 0 to 1"),
    ],
)
def test_wrong_arguments_are_one_line(change: dict, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        l1(**change)
    assert str(caught.value).startswith(says)
