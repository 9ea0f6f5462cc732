"""What a network offers to be pruned by structures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.thinning.coupling import couplings
from raydistill.models.decoder_lm import DecoderLM
from raydistill.models.word_lang_model import WordLangModel
from tests.compression.thinning.attentions import Net, Shared, Torchs


@pytest.mark.slow
def test_a_decoder_offers_heads_and_neurons() -> None:
    offer = couplings(DecoderLM(50, 32, 2, 4, 0.0, 16), torch.arange(18).view(2, 9))
    assert sorted((each.kind, each.name, each.count) for each in offer.couplings) == [
        ("Embedding", "encoder", 32),
        ("Heads", "blocks.0.attention", 4),
        ("Heads", "blocks.1.attention", 4),
        ("Neurons", "blocks.0.mlp.up", 128),
        ("Neurons", "blocks.1.mlp.up", 128),
    ]
    assert len({each.topology for each in offer.couplings}) == 3
    assert offer.refused["decoder"] == "an output of the network"
    assert "normalizes over channels" in offer.refused["blocks.0.mlp.down"]


def test_heads_that_share_keys_are_one_structure() -> None:
    (heads,) = [each for each in couplings(Net(Shared()), torch.randn(2, 5, 6)).couplings if each.kind == "Heads"]
    q, k, v, out = heads.slices
    assert q.where.tolist() == [list(range(8)), list(range(8, 16))]
    assert k.where.tolist() == v.where.tolist() == [list(range(4)), list(range(4, 8))]
    assert (out.dim, out.where.tolist()) == (1, q.where.tolist())


def test_torchs_own_has_one_weight_for_three() -> None:
    (heads,) = [each for each in couplings(Net(Torchs()), torch.randn(2, 5, 6)).couplings if each.kind == "Heads"]
    assert [each.weight for each in heads.slices] == ["attention.own.in_proj_weight"] * 3 + [
        "attention.own.out_proj.weight"
    ]
    assert heads.slices[1].where[1].tolist() == [20, 21, 22, 23]


def test_units_of_each_layer_with_all_that_read_them() -> None:
    first, second = couplings(WordLangModel(50, 8, 12, 2), torch.arange(18).view(2, 9)).couplings
    assert (first.kind, first.count, first.tied, second.tied) == ("Units", 12, "rnn", "rnn")
    assert [(each.weight, each.dim, tuple(each.where.shape)) for each in second.slices] == [
        ("rnn.weight_ih_l1", 0, (12, 4)),
        ("rnn.weight_hh_l1", 0, (12, 4)),
        ("rnn.weight_hh_l1", 1, (12, 1)),
        ("decoder.weight", 1, (12, 1)),
    ]
    assert first.slices[-1].weight == "rnn.weight_ih_l1"


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=4), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.a(x)).mean((2, 3)))


def test_of_channels_that_are_read_in_groups_one_of_each_is_a_structure() -> None:
    first, second = sorted(couplings(Grouped(), torch.randn(1, 3, 4, 4)).couplings, key=lambda each: each.name)
    assert (first.name, first.count) == ("a", 2)
    rows, columns = sorted(first.slices, key=lambda part: part.weight)
    assert (rows.weight, rows.where.tolist()) == ("a.weight", [[0, 2, 4, 6], [1, 3, 5, 7]])
    assert (columns.weight, columns.dim, columns.where.tolist()) == ("b.weight", 1, [[0], [1]])
    assert [part.where.tolist() for part in second.slices] == [[[0, 2, 4, 6], [1, 3, 5, 7]]] * 2


class Unlike(Grouped):
    """Two convolutions that read the same channels in different groups."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(8, 8, 3, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.out((self.b(x) + self.c(x)).mean((2, 3)))


def test_groups_of_two_kinds_are_refused_with_the_reason() -> None:
    offer = couplings(Unlike(), torch.randn(1, 3, 4, 4))
    assert "in groups of another kind" in offer.refused["a"]


def test_the_network_stays_as_it_is() -> None:
    model = Net(Torchs()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    couplings(model, torch.randn(2, 5, 6))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


class Normalized(nn.Module):
    """groups: of the norm behind the first convolution. read: of the second convolution."""

    def __init__(self, groups: int, read: int = 1) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 12, 3), nn.GroupNorm(groups, 12)
        self.second, self.head = nn.Conv2d(12, 8, 3, groups=read), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.norm(self.first(x)).relu()).mean((2, 3)))


def test_channels_that_are_normalized_together_are_one_structure() -> None:
    offer = couplings(Normalized(4), torch.randn(2, 3, 8, 8))
    (found,) = [each for each in offer.couplings if each.name == "first"]
    assert found.count == 4
    assert {(each.weight, each.dim) for each in found.slices} == {("first.weight", 0), ("second.weight", 1)}
    assert all(each.where.tolist() == torch.arange(12).view(4, 3).tolist() for each in found.slices)
    assert [each.weight for each in found.norms] == ["norm.weight"]
    refused = couplings(Normalized(4, read=2), torch.randn(2, 3, 8, 8)).refused
    assert "in groups of another kind" in refused["first"]
