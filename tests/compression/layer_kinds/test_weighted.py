from __future__ import annotations

import torch
from torch import nn

from raydistill.compression.layer_kinds import LINEAR, WeightedKind, kind_of, weighted


def test_a_linear_layer_is_rows_by_columns_by_one_tap() -> None:
    module = nn.Linear(4, 3)
    assert kind_of(module) is weighted(module) is LINEAR
    assert torch.equal(LINEAR.blocks(module)[0, :, :, 0], module.weight)
    LINEAR.blocks(module)[0, 1] = 0.0  # a view
    assert LINEAR.zero_rows(module).tolist() == [False, True, False]
    module.weight.data[:, 2] = 0.0
    assert LINEAR.zero_columns(module).tolist() == [False, False, True, False]


def test_its_cuts_keep_rows_and_columns_of_whatever_has_its_shape() -> None:
    module, (rows, columns) = nn.Linear(4, 3), (torch.tensor([0, 2]), torch.tensor([1]))
    cuts = LINEAR.cuts(module, rows, columns)
    assert cuts["weight"](torch.arange(12).view(3, 4)).tolist() == [[1], [9]]
    assert cuts["bias"](torch.arange(3)).tolist() == [0, 2]
    assert set(LINEAR.cuts(module, None, columns)) == {"weight"}
    assert set(LINEAR.cuts(nn.Linear(4, 3, bias=False), rows, None)) == {"weight"}


def test_a_weight_stored_the_other_way_round() -> None:
    kind, module = WeightedKind(out_dim=1, in_dim=0), nn.Module()
    module.weight = nn.Parameter(torch.arange(1.0, 13).view(4, 3))
    assert (kind.rows(module), kind.columns(module)) == (3, 4)
    assert kind.blocks(module)[0, 1, :, 0].tolist() == [2, 5, 8, 11]
    cut = kind.cuts(module, torch.tensor([0, 2]), torch.tensor([3]))["weight"]
    assert cut(module.weight).tolist() == [[10, 12]]
    assert kind.bias_of(module) is None


def test_a_weight_that_is_computed_anew_is_not_cut() -> None:
    assert LINEAR.may_be_cut(nn.Linear(2, 2))
    assert not LINEAR.may_be_cut(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))


def test_samples_are_all_of_its_inputs_and_outputs() -> None:
    module, x = nn.Linear(4, 3), torch.randn(2, 5, 4)
    found = LINEAR.samples(module, x, module(x), 1)
    assert found is not None
    torch.testing.assert_close(found[0] @ module.weight.T + module.bias, found[1])
    assert found[0].shape == (10, 4)
