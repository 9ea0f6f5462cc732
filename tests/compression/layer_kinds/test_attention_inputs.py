"""What the projections of attention read, against attention written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.layer_kinds import kind_of

E = 8


def projected(module: Any, weight: str, read: Tensor) -> list[Tensor]:
    """Each group of rows times what it reads."""
    rows = module.get_parameter(weight).unflatten(0, (len(read), -1))
    return list(read @ rows.mT)


@torch.no_grad()
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_output_projection_of_what_it_reads_is_the_output(batch_first: bool, bias: bool) -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(E, 2, bias=bias, batch_first=batch_first).eval()
    query, key = torch.randn(3, 5, E), torch.randn(3, 7, E)
    if not batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    mask = torch.zeros(3, 7, dtype=torch.bool)
    mask[:, 5:] = True
    named = {"key_padding_mask": mask, "need_weights": False}
    kind = kind_of(attention)
    expected = attention(query, key, key, **named)[0].reshape(-1, E)
    read = kind.reads(attention, "out_proj.weight", (query, key, key), named)
    (found,) = projected(attention, "out_proj.weight", read)
    torch.testing.assert_close(found + (attention.out_proj.bias if bias else 0.0), expected)


@torch.no_grad()
def test_packed_projections_read_queries_keys_and_values() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(E, 2, batch_first=True)
    query, key, value = torch.randn(2, 3, E), torch.randn(2, 4, E), torch.randn(2, 4, E)
    read = kind_of(attention).reads(attention, "in_proj_weight", (query,), {"value": value, "key": key})
    assert read.shape == (3, 8, E)
    assert torch.equal(read[0, :6], query.reshape(-1, E))
    assert bool((read[0, 6:] == 0).all())
    assert torch.equal(read[1], key.reshape(-1, E))
    assert torch.equal(read[2], value.reshape(-1, E))


@torch.no_grad()
def test_projections_apart_read_theirs() -> None:
    attention = nn.MultiheadAttention(E, 2, kdim=3, vdim=5)
    kind = kind_of(attention)
    assert kind.multiplies(attention) == ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")
    given = (torch.randn(4, 1, E), torch.randn(6, 1, 3), torch.randn(6, 1, 5))
    read = kind.reads(attention, "v_proj_weight", given, {})
    assert torch.equal(read, given[2].reshape(1, 6, 5))
