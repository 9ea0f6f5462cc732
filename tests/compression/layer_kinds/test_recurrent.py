"""Layers with several weights under one kernel."""

from __future__ import annotations

import pytest
from torch import nn

from raydistill.compression.layer_kinds import kind_of


@pytest.mark.parametrize(
    ("module", "rounded"),
    [
        (nn.LSTM(3, 4), {"weight_ih_l0": 0, "weight_hh_l0": 0}),
        (nn.GRUCell(3, 4), {"weight_ih": 0, "weight_hh": 0}),
        (nn.MultiheadAttention(4, 2), {"in_proj_weight": 0}),
        (nn.MultiheadAttention(4, 2, kdim=3, vdim=5), {"q_proj_weight": 0, "k_proj_weight": 0, "v_proj_weight": 0}),
        (nn.Linear(3, 4), {"weight": 0}),
        (nn.ConvTranspose2d(3, 4, 2), {"weight": 1}),
        (nn.Embedding(3, 4), {"weight": None}),
        (nn.BatchNorm2d(3), {}),
    ],
)
def test_what_a_quantizer_rounds(module: nn.Module, rounded: dict[str, int | None]) -> None:
    assert kind_of(module).rounded(module) == rounded
