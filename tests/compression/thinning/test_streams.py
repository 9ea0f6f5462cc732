"""Who writes to a residual stream and who reads it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression.thinning.streams import streams, unwritten_widths
from raydistill.models.decoder_lm import DecoderLM
from tests.compression.thinning.test_width import Root, Tied

TOKENS = torch.arange(18).view(2, 9)


def test_a_decoder_has_one() -> None:
    (stream,) = streams(DecoderLM(50, 16, 2, 4, 0.0, 16).double().eval(), TOKENS)
    blocks = [f"blocks.{index}." for index in range(2)]
    assert stream.writers == {
        "encoder", "positions", *(f"{block}{layer}" for block in blocks for layer in ("attention.out", "mlp.down")),
    }  # fmt: skip
    inside = ("attention.q", "attention.k", "attention.v", "mlp.up")
    assert stream.readers == {"decoder", *(f"{block}{layer}" for block in blocks for layer in inside)}
    assert stream.norms == {"norm", *(f"{block}{norm}" for block in blocks for norm in ("norm1", "norm2"))}
    assert (stream.width, stream.tables, stream.escapes) == (16, {}, False)


def test_tables_attention_and_norms_of_ones_own() -> None:
    model = Tied(Root).double().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (stream,) = streams(model, TOKENS)
    assert stream.writers == {"tokens", "attention.out_proj", "down"}
    assert stream.tables == {"places": 2}
    assert stream.readers == {"attention", "gate", "up", "head"}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Merged(nn.Module):
    """Two layers of one stream are used by hand, behind a batch norm; four neighbours are merged before a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shifted, self.inner = nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Linear(6, 9)
        self.back, self.norm, self.wide = nn.Linear(9, 6), nn.LayerNorm(24), nn.Linear(24, 2)
        self.before = nn.LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(self.first(x))
        hidden = functional.linear(self.shifted(x.flatten(0, 1)), self.inner.weight, self.inner.bias).relu()
        x = x + functional.linear(hidden, self.back.weight).view(x.shape)
        return self.wide(self.norm(x.unflatten(1, (-1, 4)).flatten(2)))


def test_layers_used_by_hand_and_neighbours_merged() -> None:
    found = {stream.width: stream for stream in streams(Merged().double().eval(), torch.randn(2, 8, 3).double())}
    assert found[6].writers == {"first", "back"}
    assert found[6].readers == {"inner", "wide"}
    assert found[6].norms == {"shifted", "norm", "before"}
    assert found[6].times == {"norm": 4, "wide": 4}
    assert found[6].positions("wide", torch.tensor([1])).tolist() == [[1, 7, 13, 19]]
    assert found[6].positions("inner", torch.tensor([1, 4])).tolist() == [[1], [4]]


def test_widths_in_which_something_is_not_written() -> None:
    model = DecoderLM(50, 16, 1, 4, 0.0, 16)
    assert unwritten_widths(model) == set()
    with torch.no_grad():
        model.blocks[0].mlp.up.weight[3] = 0  # of a width that no norm has
    assert unwritten_widths(model) == set()
    with torch.no_grad():
        model.blocks[0].mlp.down.weight[3] = 0
    assert unwritten_widths(model) == {16}
