"""A user's pruner remembers weights and acts on the network around its decisions, by nothing but `Pruner`'s hooks."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression import CompressionScheduler
from raydistill.compression.masks import MaskSet
from raydistill.compression.policies import PruningPolicy
from raydistill.compression.pruners import AutomatedGradualPruner, Moment, Network, Pruner, SparsityLevelParameterPruner
from raydistill.compression.rates import PolicyTime
from raydistill.compression.thinning import thin
from raydistill.errors import ConfigError


class Watched(Pruner):
    """Skips its first epoch, remembers the weights then, and doubles what it keeps."""

    def before_masks(self, network: Network, when: PolicyTime) -> bool:
        if when.epoch == 0:
            network.remember({"0.weight": network.model.get_parameter("0.weight")})
        return when.epoch > 0

    def mask(self, weight_name: str, weight: Tensor, when: PolicyTime) -> Tensor:
        mask = torch.ones_like(weight)
        mask[1] = 0
        return mask

    def after_masks(self, network: Network, masks: Mapping[str, Tensor], moment: Moment) -> None:
        network.masks.parameter("0.weight").copy_(network.memory["0.weight"] * 2)


@pytest.fixture
def parts() -> tuple[nn.Module, MaskSet, PruningPolicy]:
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
    model[0].weight.data.copy_(torch.arange(1.0, 7).view(3, 2))
    masks = MaskSet(model)
    return model, masks, PruningPolicy(Watched("w", ("0.weight",)), model, masks, ["0.weight"], 2)


def test_hooks_stand_before_and_after_a_decision(parts: tuple[nn.Module, MaskSet, PruningPolicy]) -> None:
    model, masks, policy = parts
    policy.on_epoch_begin(PolicyTime(0, 0, 3, 1))
    assert masks.names() == ()
    model[0].weight.data.fill_(9.0)
    policy.on_epoch_begin(PolicyTime(1, 0, 3, 1))
    assert model[0].weight.tolist() == [[2, 4], [0, 0], [10, 12]]
    assert masks["0.weight"].tolist() == [[1, 1], [0, 0], [1, 1]]


def test_what_is_remembered_is_saved_and_is_thinned_with_the_network(
    parts: tuple[nn.Module, MaskSet, PruningPolicy],
) -> None:
    model, masks, policy = parts
    scheduler = CompressionScheduler(model, [], masks)
    scheduler.add(policy, 0, 3)
    for epoch in (0, 1):
        scheduler.on_epoch_begin(epoch)
    assert thin(model, masks, torch.zeros(1, 2)).removed == {"0": 1}
    assert policy.state_dict()["early"]["0.weight"].tolist() == [[1, 2], [5, 6]]
    other = PruningPolicy(Watched("w", ("0.weight",)), model, masks, ["0.weight"], 2)
    other.load_state_dict(policy.state_dict())
    model[0].weight.data.fill_(9.0)
    other.on_epoch_begin(PolicyTime(2, 0, 3, 1))
    assert model[0].weight.tolist() == [[2, 4], [0, 0]]


def test_a_policy_says_what_it_plans() -> None:
    model = nn.Linear(10, 10)
    pruner = AutomatedGradualPruner("a", 0.1, 0.5, ["weight"])
    policy = PruningPolicy(pruner, model, MaskSet(model), ["weight"], 4)
    first, last = PolicyTime(0, 0, 5, 1), PolicyTime(4, 0, 5, 1)
    assert [policy.fractions({"weight": model.weight}, when) for when in (first, last)] == [
        {"weight": 0.1},
        {"weight": 0.5},
    ]
    assert policy.fractions({}, first) == {}  # a weight that the model lacks
    assert policy.says(last) == "1 weight to 50.0%"
    unknown = PruningPolicy(Watched("w", ("weight",)), model, MaskSet(model), ["weight"], 4)
    assert unknown.says(first) == "1 weight by Watched"
    assert unknown.fractions({"weight": model.weight}, first) == {"weight": None}


def test_only_a_pruner_with_levels_takes_others() -> None:
    replaced = SparsityLevelParameterPruner("s", {"weight": 0.5}).with_levels({"bias": 0.25})
    assert (replaced.name, replaced.weights, replaced.levels) == ("s", ("bias",), {"bias": 0.25})
    with pytest.raises(ConfigError, match=r"args.levels: is for SparsityLevelParameterPruner, got 'Watched'"):
        Watched("w", ("weight",)).with_levels({"weight": 0.5})


def test_what_is_named_comes_first_and_everything_else_after_it_where_a_pruner_says_so() -> None:
    named = Watched("w", ("b",))
    assert named.select(["a", "b", "c"]) == ("b",)
    named.everything_else = True
    assert named.select(["a", "b", "c"]) == ("b", "a", "c")
