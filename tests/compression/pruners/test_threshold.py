"""Pruning below a threshold, worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from raydistill.compression.pruners import threshold
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError

WEIGHT = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])
NOW = PolicyTime(0, 0, 10, 1)


def test_what_equals_the_threshold_goes_and_a_star_is_for_all_others() -> None:
    pruner = threshold.MagnitudeParameterPruner("p", {"a": 2, "*": 4.5})
    assert pruner.mask("a", WEIGHT, NOW).tolist() == [[0, 0, 1], [1, 1, 1]]
    assert pruner.mask("b", WEIGHT, NOW).tolist() == [[0, 0, 0], [0, 1, 1]]
    assert (pruner.weights, pruner.everything_else) == (("a",), True)


def test_a_sensitivity_is_in_deviations_of_the_weight_as_it_was_first_pruned() -> None:
    pruner = threshold.SensitivityPruner("p", {"w": 0.75})
    bound = 0.75 * np.std(WEIGHT.numpy(), ddof=1)
    assert torch.equal(pruner.mask("w", WEIGHT, NOW), (WEIGHT.abs() > bound).float())
    other = threshold.SensitivityPruner("p", {"w": 0.75})
    other.load_state_dict(json.loads(json.dumps(pruner.state_dict())))
    for one in (pruner, other):
        assert torch.equal(one.mask("w", 0.5 * WEIGHT, NOW), (0.5 * WEIGHT.abs() > bound).float())


def test_the_slopes_of_baidus_paper() -> None:
    # start 2, ramp 2 + 3, end 12, every epoch: slope = 2 q / (2 * 3 + 3 * 7) = 2 * 0.54 / 27 = 0.04
    pruner = threshold.BaiduRNNPruner("p", 0.54, 3, 2, ["w"])
    expected = {2: 0.04, 3: 0.08, 4: 0.12, 5: 0.16 + 0.08, 6: 0.16 + 0.16, 11: 0.16 + 0.56}
    for epoch, bound in expected.items():
        assert pruner.threshold(PolicyTime(epoch, 2, 12, 1)) == pytest.approx(bound)
    assert pruner.mask("w", torch.tensor([0.13, -0.11]), PolicyTime(4, 2, 12, 1)).tolist() == [1, 0]
    with pytest.raises(ConfigError, match="reaches beyond the policy's 1 epochs"):
        pruner.threshold(PolicyTime(0, 0, 1, 1))


def test_structures_go_by_their_mean_or_their_largest() -> None:
    weight = torch.tensor([[0.0, 3.0], [1.5, 1.5], [0.5, 0.5]])
    for criterion, kept in (("Mean_Abs", [0, 0, 0]), ("Max", [1, 0, 0])):
        pruner = threshold.StructureParameterPruner("p", {"w": [1.5, "Rows"]}, criterion)
        assert pruner.mask("w", weight, NOW)[:, 0].tolist() == kept
    with pytest.raises(ConfigError, match="threshold_criteria: must be one of Mean_Abs, Max"):
        threshold.StructureParameterPruner("p", {"w": [1.5, "Rows"]}, "Mean")
