"""What stands for torchvision's attention gives what that one gives, as long as no head is gone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.layer_kinds.windows import CosineAttention, GridAttention, WindowAttention


def taken_over(model: nn.Module) -> nn.Module:
    """A copy of it with every parameter drawn, as it is before it is cut."""
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.5)
    own = copy.deepcopy(model)
    kind_of(own).before_cut(own, {})
    return own


@pytest.mark.parametrize("kind", [ShiftedWindowAttention, ShiftedWindowAttentionV2])
@pytest.mark.parametrize("shift", [[0, 0], [2, 1], [0, 2]])
@pytest.mark.parametrize("size", [(8, 12), (7, 9), (4, 10)])  # whole windows, padded ones, one that is not shifted
def test_windows_that_are_shifted_and_padded(kind: type[nn.Module], shift: list[int], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = kind(12, [4, 4], shift, 3).eval()
    own = taken_over(model)
    assert type(own) is (CosineAttention if kind is ShiftedWindowAttentionV2 else WindowAttention)
    maps = torch.randn(2, *size, 12)
    torch.testing.assert_close(own(maps), model(maps), rtol=1e-5, atol=1e-5)


def test_a_grid() -> None:
    torch.manual_seed(0)
    model = RelativePositionalMultiHeadAttention(12, 4, 16).eval()
    own = taken_over(model)
    assert type(own) is GridAttention
    tokens = torch.randn(2, 3, 16, 12)
    torch.testing.assert_close(own(tokens), model(tokens), rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_torchvisions() -> None:
    torch.manual_seed(0)
    model = ShiftedWindowAttentionV2(12, [4, 4], [2, 2], 3)
    own = taken_over(model)
    maps = torch.randn(2, 8, 8, 12)
    for one in (own, model):
        one(maps).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(own.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-4)
