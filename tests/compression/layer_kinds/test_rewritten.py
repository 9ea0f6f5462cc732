"""A block whose code needs all of its heads gets other code once it loses something, and keeps all else."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention

from raydistill.compression.layer_kinds import RewrittenKind, kind_of
from raydistill.compression.layer_kinds.windows import WindowAttention
from raydistill.compression.structure.thinned import Selection, Thinned


def test_it_is_made_ready_once_and_its_parameters_stay() -> None:
    module = ShiftedWindowAttention(8, [4, 4], [0, 0], 2)
    before = dict(module.named_parameters())
    kind = kind_of(module)
    assert isinstance(kind, RewrittenKind)
    assert (kind.block, kind.numbers) == (True, ("num_heads",))
    kind.before_cut(module, {})
    assert (type(module), module.head_dim) == (WindowAttention, 4)
    module.num_heads = 1
    assert kind_of(module) is kind
    kind.before_cut(module, {})
    assert module.head_dim == 4, "scores are scaled as before"
    assert all(module.get_parameter(name) is parameter for name, parameter in before.items())


def test_a_change_makes_the_block_of_a_layer_ready() -> None:
    model = nn.Sequential(ShiftedWindowAttention(8, [4, 4], [0, 0], 2), nn.Linear(8, 3))
    Thinned({"1": Selection(3, (0, 2))}, {}).apply(model)
    assert type(model[0]) is ShiftedWindowAttention
    rows = tuple(range(4)), tuple(range(8, 12)), tuple(range(16, 20))
    change = Thinned(
        {"0.qkv": Selection(24, sum(rows, ()))},
        {"0.proj": Selection(8, tuple(range(4)))},
        {"0": {"num_heads": (2, 1)}},
        {"0.relative_position_bias_table": (1, Selection(2, (0,)))},
    )
    change.apply(model)
    assert type(model[0]) is WindowAttention
    assert model(torch.randn(1, 8, 8, 8)).shape == (1, 8, 8, 2)
