from __future__ import annotations

import torch
from torch import nn

from raydistill.compression.layer_kinds import BATCH_NORM, GROUP_NORM, INSTANCE_NORM, PRELU, kind_of


def test_which_are_norms_a_channel() -> None:
    assert kind_of(nn.BatchNorm1d(2)) is kind_of(nn.SyncBatchNorm(2)) is BATCH_NORM
    assert kind_of(nn.InstanceNorm3d(2)) is INSTANCE_NORM
    assert BATCH_NORM.batch_norm
    assert not INSTANCE_NORM.batch_norm
    assert kind_of(nn.GroupNorm(1, 2)) is GROUP_NORM
    assert not GROUP_NORM.batch_norm
    assert not kind_of(nn.LayerNorm(2)).norm
    assert [BATCH_NORM.channel_axis(nn.BatchNorm1d(2), dims) for dims in (2, 3)] == [-1, -2]


def test_it_is_cut_with_its_statistics() -> None:
    module = nn.BatchNorm2d(3)
    module.weight.data[1] = 0.0
    assert BATCH_NORM.zero_rows(module).tolist() == [False, True, False]
    cuts = BATCH_NORM.cuts(module, torch.tensor([0, 2]), None)
    assert set(cuts) == {"weight", "bias", "running_mean", "running_var"}  # not the count of batches, a scalar
    assert cuts["weight"](module.weight).tolist() == [1.0, 1.0]


def test_one_without_tensors_is_told_how_many_rows_it_has() -> None:
    module = nn.InstanceNorm2d(3)
    assert INSTANCE_NORM.cuts(module, torch.tensor([0]), None) == {}
    INSTANCE_NORM.fit(module, 1)
    assert module.num_features == 1
    INSTANCE_NORM.fit(module)
    assert module.num_features == 1


def test_one_slope_for_all_channels_is_nobodys() -> None:
    assert PRELU.keeps_apart(nn.PReLU(3))
    assert not PRELU.keeps_apart(nn.PReLU())
    assert PRELU.zero_rows(nn.PReLU(3)).tolist() == [False] * 3


def test_a_group_norm_loses_whole_groups() -> None:
    module = nn.GroupNorm(4, 12)
    assert (GROUP_NORM.rows(module), GROUP_NORM.together(module)) == (12, 3)
    module.weight = nn.Parameter(torch.ones(9))
    GROUP_NORM.fit(module)
    assert (module.num_groups, module.num_channels) == (3, 9)
    bare = nn.GroupNorm(4, 12, affine=False)
    GROUP_NORM.fit(bare, 3)
    assert (bare.num_groups, bare.num_channels) == (1, 3)
    assert BATCH_NORM.together(nn.BatchNorm2d(3)) == 1
