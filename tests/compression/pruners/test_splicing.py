"""Dynamic network surgery, by its two thresholds."""

from __future__ import annotations

import json

import pytest
import torch

from raydistill.compression.pruners.base import Moment
from raydistill.compression.pruners.splicing import SplicingPruner
from raydistill.compression.rates import PolicyTime
from raydistill.errors import ConfigError

WEIGHT = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])  # absolute values: mean 3.5, deviation 1.8708


def surgery(pruner: SplicingPruner, weight: torch.Tensor, epoch: int, mask: torch.Tensor | None) -> list[list[float]]:
    masks = {} if mask is None else {"w": mask}
    moment = Moment(PolicyTime(epoch, 0, 10, 1), masks=masks)
    return pruner.masks({"w": weight}, moment)["w"].tolist()


def test_below_the_low_threshold_goes_from_the_high_one_up_comes_and_between_them_nothing_changes() -> None:
    pruner = SplicingPruner("p", {"w": 0.0}, low_thresh_mult=0.7, hi_thresh_mult=1.2)  # 2.45 and 4.2
    assert surgery(pruner, WEIGHT, 0, None) == [[0, 0, 1], [1, 1, 1]]
    assert surgery(pruner, WEIGHT, 0, torch.zeros(2, 3)) == [[0, 0, 0], [0, 1, 1]]
    assert surgery(pruner, WEIGHT, 0, torch.ones(2, 3)) == [[0, 0, 1], [1, 1, 1]]


def test_the_moments_are_taken_once_and_survive_a_checkpoint() -> None:
    first = SplicingPruner("p", {"*": 0.5}, 1.0, 1.0, sensitivity_multiplier=1.0)
    surgery(first, WEIGHT, 0, None)
    again = SplicingPruner("p", {"*": 0.5}, 1.0, 1.0, sensitivity_multiplier=1.0)
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    # threshold: 3.5 + 1.8708 * 0.5 * (1 + epoch), of the weights as they were first seen
    for epoch, bound in ((0, 4.4354), (1, 5.3708)):
        for pruner in (first, again):
            assert surgery(pruner, 10 * WEIGHT, epoch, None) == (10 * WEIGHT.abs() >= bound).float().tolist()
            assert surgery(pruner, WEIGHT, epoch, None) == (WEIGHT.abs() >= bound).float().tolist()


def test_thresholds_that_cross_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"hi_thresh_mult: must not be below low_thresh_mult 1.1"):
        SplicingPruner("p", {"*": 0.5}, 1.1, 0.9)
