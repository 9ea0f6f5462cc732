"""Numbers of rows arrive where channels are only moved about, and nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raydistill.compression.thinning.labels import follow
from tests.compression.thinning.attentions import Apart, Fused, Net, Shared


def test_rows_of_each_head() -> None:
    (site,) = follow(Net(Fused()).double().eval(), torch.randn(2, 5, 6).double()).sites
    assert (site.module, site.query.layer, site.value.layer) == ("attention", "attention.qkv", "attention.qkv")
    assert site.query.where.tolist() == torch.arange(16).view(4, 4).tolist()
    assert site.key.where.tolist() == torch.arange(16, 32).view(4, 4).tolist()
    assert site.value.where.tolist() == torch.arange(32, 48).view(4, 4).tolist()
    assert site.mixed is not None
    assert (site.mixed.layer, site.mixed.where.tolist()) == ("attention.out", torch.arange(16).view(4, 4).tolist())
    assert site.query.moved


def test_rotated_positions_move_queries_and_keys_but_not_values() -> None:
    (site,) = follow(Net(Shared()).double().eval(), torch.randn(2, 5, 6).double()).sites
    assert (site.query.moved, site.key.moved, site.value.moved) == (False, False, True)
    assert site.key.where.tolist() == [[0, 1, 2, 3]] * 2 + [[4, 5, 6, 7]] * 2


class Summed(Apart):
    """Cosines, in sums over letters; tokens come before heads in the result."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = (torch.nn.functional.normalize(each, dim=-1) for each in (q, k))
        weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
        return self.out(torch.einsum("b h i j, b h j d -> b i h d", weights, v).flatten(2))


def test_sums_over_letters_and_cosines() -> None:
    (site,) = follow(Net(Summed()).double().eval(), torch.randn(2, 5, 6).double()).sites
    assert (site.query.layer, site.key.layer, site.value.layer) == ("attention.q", "attention.k", "attention.v")
    assert site.query.where.tolist() == site.value.where.tolist() == torch.arange(16).view(4, 4).tolist()
    assert site.mixed is not None
    assert site.mixed.where.tolist() == torch.arange(16).view(4, 4).tolist()


class Gated(Apart):
    def forward(self, x: Tensor) -> Tensor:
        states = torch.nn.functional.scaled_dot_product_attention(
            *(layer(x).unflatten(-1, (4, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        )
        return self.out(states.transpose(1, 2).flatten(2) * x)


def test_what_is_changed_on_its_way_is_not_followed() -> None:
    (site,) = follow(Net(Gated()).double().eval(), torch.randn(2, 5, 6).double()).sites
    assert site.mixed is None


class Joined(nn.Module):
    """Reads both ends of a recurrent layer, the second first."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(3, 4, bidirectional=True, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        _, ends = self.rnn(x, state)
        return self.out(torch.cat([ends[1], ends[0]], 1)), ends


def test_readers_of_a_recurrent_layer_and_the_state_that_it_gives_out() -> None:
    seen = follow(Joined().double().eval(), torch.randn(2, 5, 3).double())
    assert seen.readers["rnn"]["out"].where.tolist() == [4, 5, 6, 7, 0, 1, 2, 3]
    assert seen.states == {1}
    assert not seen.escaped
    given = follow(Joined().double().eval(), (torch.randn(2, 5, 3).double(), torch.zeros(2, 2, 4).double()))
    assert given.escaped == {"rnn"}, "it cannot be given the state once more"
