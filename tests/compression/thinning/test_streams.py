"""Who writes to a residual stream and who reads it."""

from __future__ import annotations

import torch

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


def test_widths_in_which_something_is_not_written() -> None:
    model = DecoderLM(50, 16, 1, 4, 0.0, 16)
    assert unwritten_widths(model) == set()
    with torch.no_grad():
        model.blocks[0].mlp.up.weight[3] = 0  # of a width that no norm has
    assert unwritten_widths(model) == set()
    with torch.no_grad():
        model.blocks[0].mlp.down.weight[3] = 0
    assert unwritten_widths(model) == {16}
