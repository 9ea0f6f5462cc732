"""The record that a quantized network's numbers are settled."""

from __future__ import annotations

import pytest
from torch import nn

from raydistill.compression.structure import structure_from
from raydistill.errors import CheckpointError


def test_a_float_network_cannot_be_settled() -> None:
    (change,) = structure_from([{"change": "frozen"}])
    with pytest.raises(CheckpointError, match="the model is not quantized"):
        change.apply(nn.Linear(2, 2))
