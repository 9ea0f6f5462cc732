"""The table of what can be pruned by structures."""

from __future__ import annotations

import torch

from raydistill.compression.thinning.offered import structure_table
from raydistill.models.decoder_lm import DecoderLM


def test_what_goes_with_each_and_what_stays() -> None:
    model = DecoderLM(50, 32, 1, 4, 0.0, 16)
    stream, heads, neurons, *kept = structure_table(model, torch.arange(18).view(2, 9))
    total = sum(parameter.numel() for parameter in model.parameters())
    assert (stream.layer, stream.structures, stream.count, stream.weights) == ("encoder", "Embedding", 32, 17)
    assert (heads.layer, heads.structures, heads.count, heads.weights) == ("blocks.0.attention", "Heads", 4, 4)
    assert heads.share == 4 * 32 * 32 / total
    assert (neurons.structures, neurons.count, neurons.share) == ("Neurons", 128, 2 * 32 * 128 / total)
    assert [(row.layer, row.kept) for row in kept] == [("decoder", "an output of the network")]
