"""A norm that has lost channels counts them as zeros."""

from __future__ import annotations

import torch
from torch import nn

from raydistill.compression.layer_kinds import kind_of
from raydistill.compression.structure.cut import cut


def test_statistics_are_those_of_all_channels() -> None:
    torch.manual_seed(0)
    norm, x = nn.LayerNorm(8), torch.randn(4, 3, 8) + 5
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    keep = torch.tensor([0, 2, 3, 6, 7])
    x[..., [1, 4, 5]] = 0
    expected = norm(x)[..., keep]
    cut(nn.ModuleDict({"norm": norm}), {"norm": (keep, None)})
    torch.testing.assert_close(norm(x[..., keep]), expected)
    again = torch.tensor([0, 1, 4])
    x[..., [3, 6]] = 0
    full = nn.LayerNorm(8)
    with torch.no_grad():
        full.weight[keep], full.bias[keep] = norm.weight, norm.bias
    expected = full(x)[..., keep[again]]
    cut(nn.ModuleDict({"norm": norm}), {"norm": (again, None)})
    torch.testing.assert_close(norm(x[..., keep[again]]), expected)
    assert norm.normalized_shape == (3,)


def test_an_embedding_loses_dimensions_of_its_vectors() -> None:
    embedding = nn.Embedding(7, 4)
    expected = embedding.weight.detach()[:, [0, 3]].clone()
    cut(nn.ModuleDict({"e": embedding}), {"e": (torch.tensor([0, 3]), None)})
    assert torch.equal(embedding(torch.arange(7)), expected)
    assert (embedding.embedding_dim, kind_of(embedding).rows(embedding)) == (2, 2)


def test_what_cannot_lose_channels() -> None:
    for norm in (nn.LayerNorm((3, 4)), nn.LayerNorm(4, elementwise_affine=False)):
        assert not kind_of(norm).can_lose(norm, False)
