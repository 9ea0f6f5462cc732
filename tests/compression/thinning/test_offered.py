"""The table of what can be pruned by structures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.compression.thinning.coupling import couplings
from raydistill.compression.thinning.offered import stays, structure_table, structures_by_kind
from raydistill.models.decoder_lm import DecoderLM


@pytest.mark.slow
def test_what_goes_with_each_and_what_stays() -> None:
    model = DecoderLM(50, 32, 1, 4, 0.0, 16)
    stream, heads, neurons, blocks, *kept = structure_table(model, torch.arange(18).view(2, 9))
    total = sum(parameter.numel() for parameter in model.parameters())
    assert (stream.layer, stream.structures, stream.count, stream.weights) == ("encoder", "Embedding", 32, 17)
    assert (heads.layer, heads.structures, heads.count, heads.weights) == ("blocks.0.attention", "Heads", 4, 4)
    assert heads.share == 4 * 32 * 32 / total
    assert (neurons.structures, neurons.count, neurons.share) == ("Neurons", 128, 2 * 32 * 128 / total)
    assert (blocks.layer, blocks.structures, blocks.count) == ("blocks.0", "Blocks", 1)
    assert blocks.share == sum(parameter.numel() for parameter in model.blocks.parameters()) / total
    assert [(row.layer, row.kept) for row in kept] == [("decoder", "an output of the network")]


@pytest.mark.slow
def test_kinds_and_reasons_add_up_to_the_table() -> None:
    model, tokens = DecoderLM(50, 32, 2, 4, 0.0, 16), torch.arange(18).view(2, 9)
    offer, rows = couplings(model, tokens), structure_table(model, tokens)
    kinds = {row.kind: row for row in structures_by_kind(offer, model)}
    for kind in ("Heads", "Neurons", "Embedding"):
        own = [row for row in rows if row.structures == kind]
        assert (kinds[kind].couplings, kinds[kind].structures) == (len(own), sum(row.count for row in own))
        assert kinds[kind].share == pytest.approx(sum(row.share or 0 for row in own))  # of a kind, none overlap here
    assert [(row.reason, row.layers) for row in stays(offer, model)] == [("an output of the network", ("decoder",))]


def test_what_is_in_two_couplings_counts_once() -> None:
    model = nn.Sequential(
        nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 8, bias=False), nn.Linear(8, 2, bias=False)
    )
    (row,) = structures_by_kind(couplings(model, torch.randn(2, 4)), model)
    assert (row.couplings, row.structures, row.share) == (2, 14, 1.0)
