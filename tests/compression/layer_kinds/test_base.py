"""What is answered where nothing is known of a layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.compression.layer_kinds.base import LayerKind, select, set_sizes


class Scale(nn.Module):
    """One factor a channel, and one for all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.arange(float(width))), nn.Parameter(torch.ones(width))
        self.all = nn.Parameter(torch.ones(1))
        self.register_buffer("mean", torch.arange(float(width)) * 2)
        self.table = nn.Parameter(torch.ones(width, width))


class ScaleKind(LayerKind):
    def rows(self, module: nn.Module) -> int:
        return len(module.scale)  # type: ignore[arg-type]


def test_every_vector_of_a_layer_is_cut_with_its_rows() -> None:
    layer, kind = Scale(4), ScaleKind()
    cuts = kind.cuts(layer, torch.tensor([0, 3]), None)
    assert set(cuts) == {"scale", "bias", "mean"}
    assert cuts["mean"](layer.mean).tolist() == [0, 6]  # type: ignore[arg-type]
    assert kind.cuts(layer, None, torch.tensor([0])) == {}


def test_columns_are_rows_and_no_row_is_known_to_be_zero() -> None:
    layer, kind = Scale(4), ScaleKind()
    assert (kind.columns(layer), kind.channel_axis(layer, 4), kind.may_be_cut(layer)) == (4, -3, True)
    assert kind.zero_rows(layer).tolist() == [False] * 4
    assert kind.bias_of(layer) is layer.bias
    assert kind.bias_of(nn.ReLU()) is None
    assert (kind.macs(layer, torch.zeros(1), torch.zeros(1)), kind.attributes(layer)) == (None, "")


def test_of_what_is_not_known_the_class_is_named() -> None:
    with pytest.raises(NotImplementedError, match="ReLU: nothing is known of its channels"):
        LayerKind().rows(nn.ReLU())


def test_positions_of_a_dimension_and_sizes_by_name() -> None:
    tensor = torch.arange(6).reshape(2, 3)
    assert select(1, torch.tensor([2, 0]), tensor).tolist() == tensor[:, [2, 0]].tolist()
    layer = nn.Linear(2, 3)
    set_sizes(layer, {"out_features": 7, "": 9})
    assert (layer.out_features, layer.in_features) == (7, 2)
    assert not hasattr(layer, "")
