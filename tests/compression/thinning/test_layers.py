"""The arithmetic of thinning, against a convolution itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.compression.layer_kinds import weighted
from raydistill.compression.thinning.layers import response, zero_out

LAYERS = [nn.Linear(4, 6), nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3, groups=2)]


@pytest.mark.parametrize("layer", LAYERS)
def test_what_a_constant_channel_adds_is_what_the_layer_gives_for_it(layer: nn.Linear | nn.Conv2d) -> None:
    kind = weighted(layer)
    assert kind is not None
    which = torch.tensor([3, 0])
    added = response(kind.blocks(layer), which)
    assert added.shape == (2, 6)
    for row, column in zip(added, which.tolist(), strict=True):
        image = torch.zeros(1, 4) if isinstance(layer, nn.Linear) else torch.zeros(1, 4, 3, 3)
        image[:, column] = 1
        expected = layer(image).flatten() - layer.bias
        assert torch.allclose(row, expected, atol=1e-6)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("side", ["in", "out"])
def test_zeroed_rows_give_the_bias_and_zeroed_columns_are_not_read(layer: nn.Linear | nn.Conv2d, side: str) -> None:
    kind = weighted(layer)
    assert kind is not None
    which = torch.tensor([1, 3])
    with torch.no_grad():
        zero_out(kind.blocks(layer), which, side)
    zero = kind.zero_columns(layer) if side == "in" else kind.zero_rows(layer)
    assert zero.nonzero().flatten().tolist() == [1, 3]
    image = torch.randn(1, 4) if isinstance(layer, nn.Linear) else torch.randn(1, 4, 3, 3)
    if side == "out":
        assert torch.equal(layer(image).flatten()[which], layer.bias[which])
    else:
        other = image.clone()
        other[:, which] = 9.0
        assert torch.equal(layer(image), layer(other))
    layer.reset_parameters()
