"""Rows, columns and groups of convolutions, held against loops over their documented weight layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import ConvolutionKind, kind_of
from raydistill.compression.layer_kinds.convolution import kernel_text
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


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(1, 0), dilation=(1, 2)),
        nn.Conv2d(4, 6, 3, groups=2, padding=1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv1d(4, 6, 3, stride=2, padding=1),
        nn.Conv1d(4, 6, 3, groups=2, dilation=2), nn.Conv2d(4, 6, 3, padding="same", padding_mode="circular"),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    ],
)  # fmt: skip
def test_patches_times_the_weight_are_what_it_gives(module: nn.Module) -> None:
    maps = torch.randn(3, 4, *(7, 6)[: len(module.kernel_size)])
    for inputs in (maps, maps[0]):
        read = kind_of(module).patches(module, inputs)
        assert read is not None
        groups, outputs = module.groups, module(inputs if inputs is maps else inputs.unsqueeze(0))
        weight = module.weight.flatten(1).view(groups, module.out_channels // groups, -1)
        assert read.shape == (groups, outputs[:, 0].numel(), weight.shape[-1])
        given = torch.einsum("gpk,gok->pgo", read, weight).flatten(1) + module.bias
        torch.testing.assert_close(given, outputs.flatten(2).transpose(1, 2).flatten(0, 1))


def test_samples_are_patches_at_so_many_places_and_what_stands_there() -> None:
    torch.manual_seed(0)
    module, inputs = nn.Conv2d(4, 6, 3, padding=1, stride=2), torch.randn(3, 4, 8, 8)
    found = kind_of(module).samples(module, inputs, module(inputs), 5)
    assert found is not None
    read, gave = found
    assert (read.shape, gave.shape) == ((15, 36), (15, 6))
    torch.testing.assert_close(read @ module.weight.flatten(1).T + module.bias, gave)
    assert len({tuple(row.tolist()) for row in read[:5]}) > 1


def test_of_which_convolutions_no_patches_are_known() -> None:
    known = {
        nn.Conv3d(2, 3, 1): (False, False, ()), nn.ConvTranspose2d(2, 3, 1): (False, False, ()),
        nn.ConvTranspose1d(2, 3, 1): (False, False, ()), nn.Conv1d(2, 3, 1): (False, True, ("weight",)),
        nn.Conv2d(2, 3, 1): (True, True, ("weight",)), nn.Conv2d(2, 4, 1, groups=2): (False, True, ("weight",)),
        nn.Conv2d(2, 3, 3, padding="same"): (False, True, ("weight",)),
    }  # fmt: skip
    for module, (samples, patches, multiplies) in known.items():
        kind = kind_of(module)
        inputs = torch.randn(1, 2, *[4] * len(module.kernel_size))
        assert (kind.samples(module, inputs, module(inputs), 2) is not None) == samples
        assert (kind.patches(module, inputs) is not None) == patches
        assert kind.multiplies(module) == multiplies
        assert kind.channel_axis(module, inputs.dim()) == -1 - len(module.kernel_size)
        assert kind.adds_evenly(module) == (not module.transposed)


def test_sizes_follow_what_is_left_of_a_weight() -> None:
    def fitted(module: nn.Module, rows: int, columns: int) -> tuple[int, int, int]:
        module.weight.data = module.weight.data[:rows, :columns]
        kind_of(module).fit(module)
        return module.out_channels, module.in_channels, module.groups

    assert fitted(nn.Conv2d(4, 6, 3), 5, 3) == (5, 3, 1)
    assert fitted(nn.Conv2d(4, 6, 3, groups=2), 4, 1) == (4, 2, 2)
    assert fitted(nn.Conv2d(6, 6, 3, groups=6), 4, 1) == (4, 4, 4)
    assert fitted(nn.ConvTranspose2d(4, 6, 3), 3, 5) == (5, 3, 1)
    assert not kind_of(nn.Conv2d(1, 1, 1)).is_depthwise(nn.Conv2d(1, 1, 3))
    assert kind_of(nn.Conv2d(1, 1, 1)).may_be_cut(nn.Conv2d(1, 1, 3))
    assert not kind_of(nn.Conv2d(1, 1, 1)).may_be_cut(nn.Conv2d(4, 2, 3, groups=2))
    assert kind_of(nn.Conv2d(1, 1, 1)).attributes(nn.Conv2d(2, 2, 1)) == "k=1x1"
    assert kernel_text(()) == ""
