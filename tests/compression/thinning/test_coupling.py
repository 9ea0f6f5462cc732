"""What a network offers to be pruned by structures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.thinning.coupling import Coupling, Offer, Slice, couplings, known_couplings
from raydistill.models.decoder_lm import DecoderLM
from raydistill.models.word_lang_model import WordLangModel
from tests.compression.thinning.attentions import Apart, Net, Shared, Torchs
from tests.compression.thinning.test_streams import Merged
from tests.compression.thinning.test_width import Root, Tied


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


def held(coupling: Coupling) -> dict[tuple[str, int], list[list[int]]]:
    return {(each.weight, each.dim): each.where.tolist() for each in coupling.slices}


def named(offer: Offer) -> dict[tuple[str, str], Coupling]:
    return {(each.kind, each.name): each for each in offer.couplings}


def test_what_a_structure_holds_of_a_weight_and_what_masks_leave_of_it() -> None:
    weight = torch.arange(24.0).view(4, 3, 2)
    rows, columns = Slice("a", 0, torch.tensor([[0, 2], [1, 3]])), Slice("a", 1, torch.tensor([[0], [2]]))
    assert rows.of(weight).tolist() == [[*range(6), *range(12, 18)], [*range(6, 12), *range(18, 24)]]
    assert columns.of(weight).tolist() == [[0, 1, 6, 7, 12, 13, 18, 19], [4, 5, 10, 11, 16, 17, 22, 23]]
    coupling = Coupling("Filters", "a", ("a",), (rows, columns, Slice("b", 0, torch.tensor([[1], [0]]))), "")
    masks = coupling.expand(torch.tensor([1.0, 0.0]), {"a": weight, "b": torch.zeros(3), "c": torch.zeros(1)})
    assert masks["a"].sum((1, 2)).tolist() == [4, 0, 4, 0]  # rows 1 and 3 go, and column 2 of all
    assert masks["a"][0].tolist() == [[1, 1], [1, 1], [0, 0]]
    assert masks["b"].tolist() == [0, 1, 1]
    assert set(masks) == {"a", "b"}
    assert (coupling.count, coupling.tied, coupling.norms, coupling.shifts, coupling.biases) == (2, "", (), (), ())


class Residual(nn.Module):
    """A stream of six channels, written by two layers and read behind norms."""

    def __init__(self, given_out: bool = False) -> None:
        super().__init__()
        self.first, self.norm, self.up = nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 10)
        self.down, self.last, self.head = nn.Linear(10, 6, bias=False), nn.RMSNorm(6), nn.Linear(6, 2)
        self.given_out = given_out

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.first(x)
        x = x + self.down(self.up(self.norm(x)).relu())
        return (self.head(self.last(x)), x) if self.given_out else self.head(self.last(x))


def test_a_stream_is_written_with_biases_and_read_behind_norms() -> None:
    found = named(couplings(Residual(), torch.randn(4, 3)))
    assert set(found) == {("Embedding", "first"), ("Neurons", "up")}
    stream, neurons = found["Embedding", "first"], found["Neurons", "up"]
    each = [[channel] for channel in range(6)]
    assert held(stream) == {
        ("first.weight", 0): each, ("first.bias", 0): each, ("down.weight", 0): each, ("up.weight", 1): each,
        ("head.weight", 1): each, ("norm.weight", 0): each, ("norm.bias", 0): each, ("last.weight", 0): each,
    }  # fmt: skip
    assert stream.writers == ("first.weight", "down.weight")
    assert stream.topology == "Embedding: 2 Linear in, 2 Linear out"
    units = [[unit] for unit in range(10)]
    assert held(neurons) == {("up.weight", 0): units, ("down.weight", 1): units}
    assert (neurons.writers, neurons.topology) == (("up.weight",), "Neurons: 1 Linear in, 1 Linear out")
    assert [part.weight for part in neurons.biases] == ["up.bias"]
    assert set(named(couplings(Residual(given_out=True), torch.randn(4, 3)))) == {("Neurons", "up")}


def test_neighbours_that_are_merged_before_a_layer_go_with_their_channel_and_shared_tables_have_one_name() -> None:
    offer = couplings(Merged(), torch.randn(2, 8, 3))
    (stream,) = [each for each in offer.couplings if each.kind == "Embedding"]
    found = held(stream)
    merged = [[channel, channel + 6, channel + 12, channel + 18] for channel in range(6)]
    assert found["wide.weight", 1] == found["norm.weight", 0] == found["norm.bias", 0] == merged
    assert found["inner.weight", 1] == found["shifted.weight", 0] == [[channel] for channel in range(6)]
    tied = Tied(Root)
    (stream,) = [each for each in couplings(tied, torch.arange(18).view(2, 9)).couplings if each.kind == "Embedding"]
    assert {(name, dim) for name, dim in held(stream) if name in ("tokens.weight", "head.weight", "places")} == {
        ("tokens.weight", 1),
        ("places", 2),
    }


def test_couplings_are_found_once_for_a_network_of_the_same_shapes() -> None:
    model, x = Residual(), torch.randn(4, 3)
    first = known_couplings(model, x)
    assert known_couplings(model, x) is first
    with torch.no_grad():
        model.first.weight.zero_()
    assert known_couplings(model, x) is first
    model.up, model.down = nn.Linear(6, 4), nn.Linear(4, 6)
    assert named(known_couplings(model, x))["Neurons", "up"].count == 4
    assert known_couplings(Residual(), x) is not first


def test_what_norms_and_biases_say_of_channels() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1)
    ).eval()
    found = named(couplings(model, torch.randn(1, 3, 5, 5)))["Filters", "0"]
    each = [[channel] for channel in range(4)]
    assert held(found) == dict.fromkeys([("0.weight", 0), ("2.weight", 0), ("3.weight", 1)], each)
    assert [(part.weight, part.dim, part.where.tolist()) for part in found.norms] == [("1.weight", 0, each)]
    assert [part.weight for part in found.shifts] == ["1.bias"]
    assert sorted(part.weight for part in found.biases) == ["0.bias", "2.bias"]
    assert found.topology == "Filters: 1 BatchNorm2d through, 1 Conv2d in, 1 Conv2d out, 1 Conv2d through"


class Joined(nn.Module):
    """A norm over two convolutions' channels, side by side, of so many groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 8, 1)
        self.norm, self.head = nn.GroupNorm(groups, 12), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(torch.cat([self.a(x), self.b(x)], 1)))


def test_norms_over_channels_of_others_too_and_pairs_of_channels() -> None:
    refused = couplings(Joined(6), torch.randn(1, 3, 4, 4)).refused
    assert "in groups of another kind" in refused["b"]
    free = named(couplings(Joined(12), torch.randn(1, 3, 4, 4)))
    assert held(free["Filters", "b"]) == {
        ("b.weight", 0): [[channel] for channel in range(8)], ("head.weight", 1): [[4 + n] for n in range(8)],
    }  # fmt: skip
    pairs = named(couplings(Normalized(6), torch.randn(2, 3, 8, 8)))["Filters", "first"]
    assert held(pairs)["first.weight", 0] == torch.arange(12).view(6, 2).tolist()
    assert "in groups of another kind" in couplings(Normalized(6, read=2), torch.randn(2, 3, 8, 8)).refused["first"]
    assert named(couplings(Normalized(12, read=2), torch.randn(2, 3, 8, 8)))["Filters", "first"].count == 6


class Reads(nn.Module):
    """Two directions in two layers; a layer and a recurrent layer read the last ones' outputs."""

    def __init__(self, **told: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, 2, bidirectional=True, batch_first=True, **told)
        self.again, self.out = nn.LSTM(8, 2, bidirectional=True, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.rnn(x)
        return self.out(steps).sum(1) + self.again(steps)[0][:, 0, :2]


def test_units_of_two_directions_and_who_reads_them() -> None:
    found = [each for each in couplings(Reads(), torch.randn(2, 5, 3)).couplings if each.name == "rnn"]
    assert [each.topology for each in found] == ["Units GRU 0"] * 2 + ["Units GRU 1"] * 2
    rows, units = [[unit, unit + 4, unit + 8] for unit in range(4)], [[unit] for unit in range(4)]
    back = [[unit + 4] for unit in range(4)]
    assert held(found[1]) == {
        ("rnn.weight_ih_l0_reverse", 0): rows, ("rnn.weight_hh_l0_reverse", 0): rows,
        ("rnn.weight_hh_l0_reverse", 1): units, ("rnn.weight_ih_l1", 1): back, ("rnn.weight_ih_l1_reverse", 1): back,
    }  # fmt: skip
    assert held(found[2]) == {
        ("rnn.weight_ih_l1", 0): rows, ("rnn.weight_hh_l1", 0): rows, ("rnn.weight_hh_l1", 1): units,
        ("out.weight", 1): units, ("again.weight_ih_l0", 1): units,
    }  # fmt: skip
    assert held(found[3])["out.weight", 1] == held(found[3])["again.weight_ih_l0", 1] == back


def test_recurrent_layers_that_cannot_be_followed_are_refused_with_the_reason() -> None:
    class Told(nn.Module):
        def __init__(self, squashed: bool) -> None:
            super().__init__()
            self.squashed = squashed
            self.rnn, self.cut = nn.GRU(3, 4), nn.LSTM(3, 4, proj_size=2)
            self.out = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            units = self.rnn(x)[0]
            return self.out(units * units if self.squashed else units) + self.cut(x)[0]

    refused = couplings(Told(True), torch.randn(5, 2, 3)).refused
    assert refused["rnn"] == "what reads it cannot be followed"
    assert refused["cut"] == "which is recurrent: only its units are thinned"
    offer = couplings(Told(False), torch.randn(5, 2, 3))
    assert "rnn" not in offer.refused
    assert [each.name for each in offer.couplings if each.kind == "Units"] == ["rnn"]


def test_attention_whose_heads_two_layers_read_is_refused_under_its_name() -> None:
    class Twice(Apart):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (layer(x).unflatten(-1, (4, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
            mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return self.out(mixed) + self.q(mixed)

    offer = couplings(Net(Twice()), torch.randn(2, 5, 6))
    assert offer.refused["attention"] == "what its heads give is not read by one layer alone, as it is"
    assert not [each for each in offer.couplings if each.kind == "Heads"]
    (heads,) = [each for each in couplings(Net(Apart()), torch.randn(2, 5, 6)).couplings if each.kind == "Heads"]
    each = torch.arange(16).view(4, 4).tolist()
    assert held(heads) == {
        ("attention.q.weight", 0): each, ("attention.k.weight", 0): each, ("attention.v.weight", 0): each,
        ("attention.out.weight", 1): each,
    }  # fmt: skip
    assert heads.writers == tuple(weight for weight, _ in held(heads))
    assert heads.topology == "Heads: 4 Linear "


class Counting(nn.Module):
    """A residual stream, of which its own code may know the width."""

    def __init__(self, written: bool) -> None:
        super().__init__()
        self.first, self.norm, self.up = nn.Linear(3, 12), nn.LayerNorm(12), nn.Linear(12, 7)
        self.down, self.last, self.written = nn.Linear(7, 12), nn.Linear(12, 2), written

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.down(self.up(self.norm(x)).relu())
        return self.last(x.view(-1, 12) if self.written else x)


@pytest.mark.slow
def test_a_width_is_offered_where_some_of_it_can_go() -> None:
    torch.manual_seed(0)
    found = couplings(Counting(False), torch.randn(4, 3))
    assert [(each.kind, each.name, each.count) for each in found.couplings if each.kind == "Embedding"] == [
        ("Embedding", "first", 12)
    ]
    refused = couplings(Counting(True), torch.randn(4, 3))
    assert all(each.kind != "Embedding" for each in refused.couplings)
    why = "the width of its stream stays: its own code does not run, or gives something else, with fewer"
    assert refused.refused["first"] == why
