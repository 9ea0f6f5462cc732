"""A term of the loss, and groups that are zeroed once they are small."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.base import Step
from raydistill.compression.policies.regularization import RegularizationControls, RegularizationPolicy
from raydistill.compression.rates import PolicyTime
from raydistill.compression.regularizers import L1Regularizer
from raydistill.errors import ConfigError

VALUES = [[0.5, -0.2], [0.1, -2.0]]


def policy(threshold: str | None, keep_mask: bool = False) -> tuple[nn.Linear, MaskSet, RegularizationPolicy]:
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor(VALUES)
    masks = MaskSet(model)
    regularizer = L1Regularizer("r", {"weight": 0.3}, threshold)
    return model, masks, RegularizationPolicy(regularizer, masks, ["weight"], 4, RegularizationControls(keep_mask))


def test_the_term_is_added_and_reaches_the_weights() -> None:
    model, _, of = policy(None)
    loss = of.before_backward(Step(0, 0, 1), torch.tensor(1.0))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1.0 + 0.3 * (0.5 + 0.2 + 0.1 + 2.0))
    assert model.weight.grad is not None
    assert model.weight.grad.tolist() == [[pytest.approx(0.3), pytest.approx(-0.3)]] * 2
    assert of.says(PolicyTime(0, 0, 5, 1)) == "regularises 1 weight"


def test_what_is_not_above_the_strength_is_zeroed_where_a_criterion_is_given() -> None:
    for threshold, expected in (("Max", [[0.5, 0.0], [0.0, -2.0]]), (None, VALUES)):
        model, _, of = policy(threshold)
        of.on_minibatch_end(Step(0, 0, 1))
        assert torch.equal(model.weight.detach(), torch.tensor(expected))


def test_the_zeros_are_held_from_the_last_epoch_on_and_join_a_mask_that_is_there() -> None:
    model, masks, of = policy("Max", keep_mask=True)
    masks.set("weight", torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
    of.on_epoch_end(PolicyTime(3, 0, 5, 1), {})
    assert masks["weight"].tolist() == [[0, 1], [1, 1]]
    of.on_epoch_end(PolicyTime(4, 0, 5, 1), {})
    assert masks["weight"].tolist() == [[0, 0], [0, 1]]
    assert model.weight.tolist() == [[0, 0], [0, -2.0]]


def test_wrong_controls_are_one_line() -> None:
    with pytest.raises(ConfigError, match="keep_mask: must be true or false"):
        RegularizationControls("yes")  # type: ignore[arg-type]
