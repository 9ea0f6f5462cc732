"""A multilayer perceptron, as its functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from raydistill.errors import ConfigError
from raydistill.models import create
from raydistill.models.mlp import MLP


def test_it_is_its_functions() -> None:
    torch.manual_seed(0)
    model, features = MLP(7, 3, (5, 4, 6), dropout=0.5).eval(), torch.randn(9, 7)
    x = features
    for layer in model.layers:
        x = F.linear(x, layer.weight, layer.bias).clamp(min=0)
    assert torch.allclose(model(features), F.linear(x, model.out.weight, model.out.bias))
    assert [tuple(layer.weight.shape) for layer in (*model.layers, model.out)] == [(5, 7), (4, 5), (6, 4), (3, 6)]
    assert (model(features) < 0).any(), "no ReLU behind the last layer"
    assert not torch.equal(model.train()(features), model(features))


@pytest.mark.parametrize("widths", [[], [3, 0], [2.5], "64", [True]])
def test_widths_that_are_none_are_one_line(widths: object) -> None:
    with pytest.raises(ConfigError, match="must be whole numbers from 1 up, one a hidden layer"):
        create("mlp", None, {"widths": widths})
