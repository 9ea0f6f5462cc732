"""What regularizers share."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from raydistill.compression.regularizers import Regularizer
from raydistill.errors import ConfigError


class Squared(Regularizer):
    def term(self, weight_name: str, weight: Tensor) -> Tensor:
        return (weight**2).sum() * (1 if weight_name == "a" else 10)


def test_terms_of_all_weights_are_added_to_the_loss() -> None:
    of = Squared("r", ("a", "b"), None)
    loss = of.loss({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}, torch.tensor(0.5))
    assert float(loss) == 0.5 + (1 + 4) + 10 * 9
    assert float(of.loss({}, torch.tensor(0.5))) == 0.5
    assert of.fault_of("a", torch.ones(1)) == ""


def test_without_a_threshold_of_its_own_it_cannot_be_asked_for_one() -> None:
    with pytest.raises(NotImplementedError, match="Squared"):
        Squared("r", ("a",), "Max").threshold_mask("a", torch.ones(1))


def test_an_unknown_criterion_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"threshold_criteria: must be one of Mean_Abs, Max, or left out.*Mean_Abs"):
        Squared("r", ("a",), "Mean_Ab")
