"""Whole kernels and rows that are zero, and how large filters are, by loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from raydistill.compression.statistics.structures import filter_magnitudes, structure_sparsity


def net() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv1d(4, 2, 5), nn.Linear(6, 5))
    with torch.no_grad():
        model[0].weight[0] = 0.0  # 3 kernels of 12
        model[0].weight[1, 2] = 0.0
        model[0].weight[2, 0, 0] = 0.0  # a part of one
        model[1].weight[1, 3] = 0.0  # 1 of 8
        model[2].weight[3] = 0.0  # 1 row of 5
        model[2].weight[:, 2] = 0.0
    return model


def test_kernels_and_rows() -> None:
    assert structure_sparsity(net()) == {
        "0.weight": pytest.approx(4 / 12),
        "1.weight": pytest.approx(1 / 8),
        "2.weight": pytest.approx(1 / 5),
    }
    assert structure_sparsity(nn.BatchNorm1d(3)) == {}


def test_filters() -> None:
    model = net()
    found = filter_magnitudes(model)
    assert set(found) == {"0.weight", "1.weight", "2.weight"}
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            expected = [float(row.abs().sum()) / row.numel() for row in weight.detach()]
            np.testing.assert_allclose(found[name], expected, rtol=1e-5)
    assert found["0.weight"][0] == 0.0
