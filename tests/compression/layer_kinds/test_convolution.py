"""Rows, columns and groups of convolutions, held against loops over their documented weight layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import ConvolutionKind, kind_of
from raydistill.compression.thinning import thin

LAYERS = {
    "plain": nn.Conv2d(4, 6, 3),
    "line": nn.Conv1d(4, 6, 3),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(6, 6, 3, groups=6),
    "multiplied": nn.Conv2d(3, 6, 3, groups=3),
    "one filter a group": nn.Conv2d(6, 3, 3, groups=3),
    "transposed": nn.ConvTranspose2d(4, 6, 2),
    "transposed, grouped": nn.ConvTranspose2d(4, 6, 2, groups=2),
}


def taps(module: nn.Module, row: int, column: int) -> Tensor | None:
    """A view of what this output reads of this input; None where it is of another group."""
    rows, columns, groups = module.out_channels, module.in_channels, module.groups
    if row // (rows // groups) != column // (columns // groups):
        return None
    if module.transposed:
        return module.weight.data[column, row % (rows // groups)]
    return module.weight.data[row, column % (columns // groups)]


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_zero_is_found_and_cut(name: str) -> None:
    torch.manual_seed(0)
    module = LAYERS[name]
    module.weight.data.normal_()
    kind = kind_of(module)
    assert isinstance(kind, ConvolutionKind)
    rows, columns = module.out_channels, module.in_channels
    assert (kind.rows(module), kind.columns(module)) == (rows, columns)
    for row, column in np.ndindex(rows, columns):
        found = taps(module, row, column)
        if found is not None and (row == 1 or column == 2):
            found.zero_()
    expected_rows, expected_columns = np.ones(rows, bool), np.ones(columns, bool)
    for row, column in np.ndindex(rows, columns):
        found = taps(module, row, column)
        if found is not None and found.abs().sum() > 0:
            expected_rows[row] = expected_columns[column] = False
    assert kind.zero_rows(module).tolist() == expected_rows.tolist()
    assert kind.zero_columns(module).tolist() == expected_columns.tolist()
    assert expected_rows[1]
    assert expected_columns[2]
    assert kind.is_depthwise(module) == kind.keeps_apart(module) == (name == "depthwise")
    assert kind.may_be_cut(module) == (name not in ("one filter a group", "transposed, grouped"))


def test_borders_see_fewer_taps_where_zeros_are_padded() -> None:
    pads = kind_of(nn.Conv2d(1, 1, 1)).pads_with_zeros
    assert [
        pads(nn.Conv2d(1, 1, 3, padding=padding, padding_mode=mode))
        for padding, mode in ((0, "zeros"), (1, "zeros"), ("same", "zeros"), ("valid", "zeros"), (1, "circular"))
    ] == [False, True, True, False, False]
    assert not pads(nn.Conv2d(1, 1, 1, padding="same"))


def test_its_row_in_a_summary() -> None:
    kind = kind_of(nn.Conv2d(1, 1, 1))
    assert kind.attributes(nn.Conv2d(4, 4, (3, 5), stride=2, groups=4)) == "k=3x5 s=2 g=4"
    assert kind.attributes(nn.Conv2d(4, 4, 1, stride=(1, 2), dilation=3)) == "k=1x1 s=1x2 d=3"


@pytest.mark.slow
def test_what_stands_around_a_grouped_transposed_conv_is_thinned() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 12, 2, groups=2), nn.ReLU()),
        *(nn.Conv2d(12, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1)),
    ).eval()
    model[4].weight.data[:2] = 0.0
    x = torch.randn(2, 3, 8, 8)
    expected = model(x).detach()
    assert thin(model, None, x[:1]).removed == {"4": 2}
    torch.testing.assert_close(model(x), expected)
