"""A fixed level a weight."""

from __future__ import annotations

import torch

from raydistill.compression.pruners.level import SparsityLevelParameterPruner
from raydistill.compression.rates import PolicyTime


def test_each_weight_has_its_level_at_any_time_and_others_may_take_its_place() -> None:
    pruner = SparsityLevelParameterPruner("p", {"a": 0.25, "b": 0.75})
    weight = torch.tensor([[4.0, -1.0], [3.0, 2.0]])
    for epoch in (0, 5):
        when = PolicyTime(epoch, 0, 9, 1)
        assert pruner.mask("a", weight, when).tolist() == [[1, 0], [1, 1]]
        assert pruner.mask("b", weight, when).tolist() == [[1, 0], [0, 0]]
    other = pruner.with_levels({"a": 0.5})
    assert (other.name, other.levels, other.weights) == ("p", {"a": 0.5}, ("a",))
    assert other.mask("a", weight, PolicyTime(0, 0, 1, 1)).tolist() == [[1, 0], [1, 0]]
    assert pruner.levels == {"a": 0.25, "b": 0.75}
