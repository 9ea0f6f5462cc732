"""How sparse a model is, counted a second time by numpy."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from raydistill.compression.sparsity import from_counts, sparsity, weights, zero_counts


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(4, 5))
    for parameter in model.parameters():
        parameter.data[torch.rand(parameter.shape) < 0.3] = 0.0
    return model


def test_only_parameters_of_two_or_more_dimensions_count() -> None:
    model = network()
    counted = {name: p.detach().numpy() for name, p in model.named_parameters() if name in ("0.weight", "2.weight")}
    assert [name for name, _ in weights(model)] == list(counted)
    assert zero_counts(model) == {name: (int((p == 0).sum()), p.size) for name, p in counted.items()}
    total, each = sparsity(model)
    assert total == float((np.concatenate([p.ravel() for p in counted.values()]) == 0).mean())
    assert each == {name: float((p == 0).mean()) for name, p in counted.items()}


def test_a_shared_weight_counts_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert zero_counts(model) == {"0.weight": (0, 4)}


def test_what_was_removed_counts_as_zero() -> None:
    model = nn.Linear(2, 2)
    model.weight.data = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    assert sparsity(model, {"weight": 8}) == ((1 + 4) / 8, {"weight": (1 + 4) / 8})


def test_a_model_without_weights_is_not_sparse() -> None:
    assert sparsity(nn.BatchNorm1d(3)) == (0.0, {})
    assert from_counts({}) == (0.0, {})
