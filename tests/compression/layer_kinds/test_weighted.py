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


def test_what_a_linear_layer_can_lose_and_what_is_known_of_it() -> None:
    module, computed = nn.Linear(4, 3), nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    for is_column in (True, False):
        assert LINEAR.can_lose(module, is_column)
        assert not LINEAR.can_lose(computed, is_column)
    assert (LINEAR.channel_axis(module, 3), LINEAR.bias_name, LINEAR.rounded(module)) == (-1, "bias", {"weight": 0})
    assert (LINEAR.multiplies(module), LINEAR.multiplies(computed)) == (("weight",), ())
    depthwise = kind_of(nn.Conv2d(4, 4, 1, groups=4))
    assert [depthwise.can_lose(nn.Conv2d(4, 4, 1, groups=4), side) for side in (True, False)] == [False, True]
    assert set(depthwise.cuts(nn.Conv2d(4, 4, 1, groups=4), None, torch.tensor([0]))) == {"weight"}
    whole = torch.zeros(4, 1, 1, 1)
    cut = depthwise.cuts(nn.Conv2d(4, 4, 1, groups=4), torch.tensor([0, 3]), torch.tensor([0, 3]))["weight"]
    assert cut(whole).shape == (2, 1, 1, 1)
    module.weight.data = module.weight.data[:2, :3]
    LINEAR.fit(module)
    assert (module.out_features, module.in_features) == (2, 3)


def test_of_a_grouped_weight_each_group_keeps_its_own_columns() -> None:
    module = nn.Conv1d(4, 4, 1, groups=2)
    weight = torch.arange(8.0).view(4, 2, 1)
    cut = kind_of(module).cuts(module, None, torch.tensor([1, 2]))["weight"]
    assert cut(weight).flatten().tolist() == [1, 3, 4, 6]  # of the first group column 1, of the second its first
    both = kind_of(module).cuts(module, torch.tensor([0, 3]), torch.tensor([1, 2]))["weight"]
    assert both(weight).flatten().tolist() == [1, 6]


def test_what_a_weight_of_two_dimensions_reads_is_rows_and_of_others_nothing_is_known() -> None:
    module, x = nn.Linear(4, 3), torch.randn(2, 5, 4)
    read = LINEAR.patches(module, x)
    assert read is not None
    assert torch.equal(read, x.view(1, 10, 4))
    assert torch.equal(LINEAR.reads(module, "weight", (x,), {}), read)
    assert torch.equal(LINEAR.reads(module, "weight", (), {"input": x}), read)
    for kind, shape in ((WeightedKind(out_dim=1, in_dim=0), (4, 3)), (WeightedKind(), (3, 4, 1))):
        other = nn.Module()
        other.weight = nn.Parameter(torch.ones(shape))
        assert kind.patches(other, x) is None
        assert kind.samples(other, x, x, 1) is None
        assert kind.multiplies(other) == ()
