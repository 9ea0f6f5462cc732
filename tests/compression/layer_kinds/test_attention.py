"""torch's attention with fewer heads than its width has room for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.thinning import thin
from tests.compression.thinning.conftest import relative


@pytest.mark.slow
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_torchs_own_with_masks_gives_what_the_masked_one_gives(need_weights: bool, batch_first: bool) -> None:
    torch.manual_seed(0)
    full = nn.MultiheadAttention(16, 4, batch_first=batch_first).eval()
    with torch.no_grad():
        full.in_proj_bias.normal_()
        full.out_proj.bias.normal_()
        full.out_proj.weight[:, 4:12] = 0
    net = Around(copy.deepcopy(full))
    q, kv = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    thin(net, None, (q, kv))
    few = net.own
    assert few.num_heads == 2
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 5:] = True
    unseen = torch.rand(5, 7) > 0.7
    unseen[:, 0] = False
    added = torch.randn(5, 7)
    for mask in (None, unseen, added):
        for pad in (None, padding):
            options = {"attn_mask": mask, "key_padding_mask": pad, "need_weights": need_weights}
            given = (q, kv) if batch_first else (q.transpose(0, 1), kv.transpose(0, 1))
            found, weights = few(given[0], given[1], given[1], average_attn_weights=False, **options)
            expected, all_weights = full(given[0], given[1], given[1], average_attn_weights=False, **options)
            assert relative(expected, found) < 1e-5
            if need_weights:
                torch.testing.assert_close(weights, all_weights[:, [0, 3]])
    single = few(q[0], kv[0], kv[0], need_weights=False)[0]
    assert relative(full(q[0], kv[0], kv[0], need_weights=False)[0], single) < 1e-5


class Around(nn.Module):
    def __init__(self, own: nn.MultiheadAttention) -> None:
        super().__init__()
        self.own = own

    def forward(self, q: Tensor, kv: Tensor) -> Tensor:
        q, kv = (q, kv) if self.own.batch_first else (q.transpose(0, 1), kv.transpose(0, 1))
        return self.own(q, kv, kv)[0]


@pytest.mark.slow
def test_torchs_fused_encoder_layer_stays_away_from_it() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    with torch.no_grad():
        for each in encoder.layers:
            each.self_attn.out_proj.weight[:, :8] = 0
    x = torch.randn(2, 5, 16)
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True
    with torch.no_grad():
        expected = encoder(x), encoder(x, src_key_padding_mask=padding)
        thin(encoder, None, x)
        assert encoder.layers[1].self_attn.in_proj_weight.shape == (24, 16)
        found = encoder(x), encoder(x, src_key_padding_mask=padding)
    assert relative(expected[0], found[0]) < 1e-5
    assert relative(expected[1][~padding], found[1][~padding]) < 1e-5


def test_keys_of_every_sequence_keep_their_heads() -> None:
    net = Around(nn.MultiheadAttention(16, 4, add_bias_kv=True, batch_first=True)).eval()
    with torch.no_grad():
        net.own.out_proj.weight[:, :8] = 0
    thin(net, None, (torch.randn(3, 5, 16), torch.randn(3, 7, 16)))
    assert net.own.num_heads == 4


@pytest.mark.parametrize(
    ("arguments", "has_heads"),
    [({}, True), ({"add_bias_kv": True}, False), ({"add_zero_attn": True}, False), ({"kdim": 8}, False)],
)
def test_what_is_added_to_keys_or_of_another_width_keeps_all_heads(arguments: dict, has_heads: bool) -> None:
    attention = nn.MultiheadAttention(16, 4, **arguments)
    kind = kind_of(attention)
    assert kind.may_be_cut(attention) is has_heads
    assert kind.can_lose(attention, True) is kind.can_lose(attention, False) is has_heads
    assert (kind.heads(attention) is not None) is has_heads
