"""Quantized networks that compute with floats for a while."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.compression.floats import as_floats, rounds_nothing
from raydistill.compression.quantizers import DorefaQuantizer
from raydistill.compression.trace import trace


def test_while_it_lasts_nothing_is_rounded() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    inputs = torch.rand(2, 4)
    before = model(inputs)
    seen = trace(model, inputs)
    DorefaQuantizer("q", 2, 2).plan(model, (inputs,)).carry_out(model)
    with as_floats():
        assert rounds_nothing()
        assert torch.equal(model(inputs), before)
    assert not torch.equal(model(inputs), before)
    assert trace(model, inputs).calls == seen.calls


def test_an_error_ends_it() -> None:
    with pytest.raises(KeyError), as_floats():
        raise KeyError
    assert not rounds_nothing()
