"""Who writes to a residual stream and who reads it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression.thinning.streams import streams, unwritten_widths
from raydistill.models.decoder_lm import DecoderLM
from tests.compression.thinning.test_width import Maps, Root, Tied

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


def test_what_takes_each_channel_by_itself_is_passed() -> None:
    model = Maps().double().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (stream,) = streams(model, torch.randn(2, 3, 8, 8).double())
    assert stream.writers == {"stem", "down"}
    assert stream.readers == {"up", "head"}
    assert stream.norms == {"first", "norm", "last"}
    assert stream.apart == {"depthwise", "scale"}
    assert stream.factors == {"gamma": 0, "beta": 1}
    assert (stream.tables, stream.escapes) == ({}, False)
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


class Given(nn.Module):
    """A stream of six channels that is given out beside what is read from it; neighbours are merged by twos."""

    def __init__(self, out: bool) -> None:
        super().__init__()
        self.first, self.norm, self.pairs, self.head = (
            nn.Linear(3, 6),
            nn.LayerNorm(6),
            nn.Linear(12, 2),
            nn.Linear(6, 2),
        )
        self.out = out

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.first(x)
        found = (self.head(self.norm(x)), self.pairs(x.unflatten(1, (-1, 2)).flatten(2)))
        return (*found, x) if self.out else found


def test_a_stream_that_is_given_out_escapes_and_pairs_of_neighbours_are_counted() -> None:
    example = torch.randn(2, 8, 3).double()
    for out in (True, False):
        model = Given(out).double().eval()
        (stream,) = streams(model, example)
        assert (stream.escapes, stream.writers, stream.readers) == (out, {"first"}, {"head", "pairs"})
        assert stream.times == {"pairs": 2}
        assert stream.positions("pairs", torch.tensor([0, 5])).tolist() == [[0, 6], [5, 11]]
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert streams(model, example, {5}) == []
        assert len(streams(model, example, {5, 6})) == 1


class Token(nn.Module):
    """A token of its own before the others, and places that are added to all: rows that differ."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.places = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(1, 5, 6))
        self.first, self.norm, self.head = nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 2)
        self.scale = nn.Parameter(torch.randn(6))  # of one dimension: no table

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), self.first(x)], 1) + self.places
        return self.head(self.norm(x))[:, 0]


def test_positions_that_are_written_by_unlike_layers_are_one_stream() -> None:
    model = Token().double().eval()
    kept = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    (stream,) = streams(model, torch.randn(2, 4, 3).double())
    assert (stream.writers, stream.tables) == ({"first"}, {"token": 2, "places": 2})
    assert (stream.readers, stream.norms, stream.times) == ({"head"}, {"norm"}, {})
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == kept


class Apart(nn.Module):
    """Two streams of one width; what is squashed on its way is of nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(3, 6)
        self.norm_a, self.norm_b, self.norm_c = nn.LayerNorm(6), nn.LayerNorm(6), nn.LayerNorm(6)
        self.head_a, self.head_b, self.head_c = nn.Linear(6, 2), nn.Linear(6, 2), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        return self.head_a(self.norm_a(a)) + self.head_b(self.norm_b(b)) + self.head_c(self.norm_c(a.tanh() * b))


def test_streams_of_one_width_that_never_meet_are_two() -> None:
    found = streams(Apart().double().eval(), torch.randn(4, 3).double())
    assert sorted((sorted(each.writers), sorted(each.readers), sorted(each.norms)) for each in found) == [
        (["a"], ["head_a"], ["norm_a"]),
        (["b"], ["head_b"], ["norm_b"]),
    ]


def test_a_width_counts_where_a_table_of_words_has_a_channel_of_zeros_too() -> None:
    model = DecoderLM(50, 16, 1, 4, 0.0, 16)
    with torch.no_grad():
        model.positions.weight[:, 3] = 0
    assert unwritten_widths(model) == {16}
    assert unwritten_widths(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))) == set()


def test_a_table_of_rows_that_is_no_layers_is_written_too() -> None:
    class Places(Token):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Parameter(torch.randn(5, 6))

    (stream,) = streams(Places().double().eval(), torch.randn(2, 4, 3).double())
    assert stream.tables == {"token": 2, "places": 1}
