"""Numbers of rows arrive where channels are only moved about, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

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


Attends = Callable[[Tensor, Tensor, Tensor], Tensor]


class By(Apart):
    """Attention as a function of (batch, heads, steps, width) writes it."""

    def __init__(self, attends: Attends) -> None:
        super().__init__()
        self.attends = attends

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out(self.attends(q, k, v).transpose(1, 2).flatten(2))


HALF = torch.tensor(0.5).double()
WRITTEN: dict[str, Attends] = {
    "a number first": lambda q, k, v: (0.5 * q @ k.mT).softmax(-1) @ v,
    "a tensor of no dimension": lambda q, k, v: (torch.mul(q, HALF) @ k.mT).softmax(-1) @ v,
    "such a tensor first": lambda q, k, v: (torch.mul(HALF, q) @ k.mT).softmax(-1) @ v,
    "divided": lambda q, k, v: (q.div(2) @ k.mT).softmax(-1) @ v,
    "values scaled too": lambda q, k, v: (q @ k.mT / 2).softmax(-1) @ (v * 3),
    "named factors": lambda q, k, v: torch.matmul(input=torch.matmul(q, other=k.mT).softmax(-1), other=v),
    "one call, named": lambda q, k, v: scaled_dot_product_attention(value=v, key=k, query=q),
    "a call and names": lambda q, k, v: scaled_dot_product_attention(q, k, value=v),
    "keys first in a sum over letters": lambda q, k, v: torch.einsum("bhjd,bhid->bhij", k, q).softmax(-1) @ v,
    "values first in a sum over letters": lambda q, k, v: torch.einsum(
        "bhjd,bhij->bhid", v, torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
    ),
    "letters in an order of their own": lambda q, k, v: torch.einsum(
        "xyac,xyce->xaye", torch.einsum("xyad,xcyd->xyac", q, k.transpose(1, 2)).softmax(-1), v
    ).transpose(1, 2),
    "another softmax in between": lambda q, k, v: (q @ k.mT).softmax(-1) @ (v + 0 * torch.ones(3).softmax(0).sum()),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_attention_is_followed_however_it_is_written(written: str) -> None:
    (site,) = follow(Net(By(WRITTEN[written])).double().eval(), torch.randn(2, 5, 6).double()).sites
    assert site.module == "attention"
    assert site.layers == ("attention.q", "attention.k", "attention.v", "attention.out")
    assert site.heads == 4
    every = torch.arange(16).view(4, 4).tolist()
    assert site.query.where.tolist() == site.key.where.tolist() == site.value.where.tolist() == every
    assert site.mixed is not None
    assert site.mixed.where.tolist() == every
    assert all(rows.moved for rows in (site.query, site.key, site.value))


CHANGED: dict[str, Attends] = {
    "a number for each channel": lambda q, k, v: (q * torch.arange(1.0, 5.0).double() @ k.mT).softmax(-1) @ v,
    "a shift": lambda q, k, v: ((q + 1.5) @ k.mT).softmax(-1) @ v,
    "two rows added up": lambda q, k, v: (q @ (k + k.flip(1)).mT).softmax(-1) @ v,
    "the values squashed": lambda q, k, v: (q @ k.mT).softmax(-1) @ v.sigmoid(),
    "heads that differ between samples": lambda q, k, v: (
        q @ torch.cat([k[:1], k[1:].flip(1)]).mT).softmax(-1) @ v,
    "values of two layers": lambda q, k, v: (q @ k.mT).softmax(-1) @ torch.cat([k[..., :2], v[..., 2:]], -1),
    "heads in the batch": lambda q, k, v: torch.bmm(
        torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT).softmax(-1), v.flatten(0, 1)).view(q.shape),
    "whole numbers": lambda q, k, v: ((q.long() // 2**40) @ k.long().mT // 2**40).double().softmax(-1) @ v,
    "a weight of no layer": lambda q, k, v: (
        nn.functional.linear(q, torch.eye(4).double() / 3) @ k.mT).softmax(-1) @ v,
}  # fmt: skip


@pytest.mark.parametrize("changed", CHANGED)
def test_rows_that_are_changed_before_they_meet_are_no_ones(changed: str) -> None:
    seen = follow(Net(By(CHANGED[changed])).double().eval(), torch.randn(2, 5, 6).double())
    assert not [site for site in seen.sites if site.mixed is not None]
    single = By(lambda q, k, v: scaled_dot_product_attention(q, k + k.flip(1), v))
    assert follow(Net(single).double().eval(), torch.randn(2, 5, 6).double()).unknown == ["attention"]


def test_sums_over_letters_that_are_no_products_of_matrices_stay_what_they_are() -> None:
    """Of one tensor, of three, with dots, without an arrow, over two letters, of a matrix and a vector."""

    class Sums(Apart):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (layer(x).unflatten(-1, (4, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
            found = [
                torch.einsum("bhid->b", q), torch.einsum("...id,...jd->...ij", q, k).sum((1, 2, 3)),
                torch.einsum("bhid,bhjd", q, k).sum().expand(2), torch.einsum("bhid,bhid->bh", q, k).sum(1),
                torch.einsum("bhid,bhjd,bhjd->bh", q, k, v).sum(1),
                torch.einsum("bhid,d->bhi", q, x[0, 0, :4]).sum((1, 2)),
                torch.einsum("id,jd->ij", x[0], x[0]).sum().expand(2),
                torch.einsum("bhij,bhkl->bhij", q, k).sum((1, 2, 3)),
                torch.einsum("bhid,bhjde->bhij", q, k[..., None]).sum((1, 2, 3)),
            ]  # fmt: skip
            return x + sum(found)[:, None, None]

    model = Net(Sums()).double().eval()
    seen = follow(model, torch.randn(2, 5, 6).double())
    assert (seen.sites, seen.unknown) == ([], [])


def test_windows_beside_the_batch_and_one_sample() -> None:
    def windows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (each.unflatten(2, (3, 2)).transpose(1, 2) for each in (q, k, v))  # (batch, windows, heads, 2, width)
        return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2, 3)

    for batch in (1, 2):
        (site,) = follow(Net(By(windows)).double().eval(), torch.randn(batch, 6, 6).double()).sites
        assert site.query.where.tolist() == torch.arange(16).view(4, 4).tolist()
        assert site.mixed is not None
    (site,) = follow(Net(By(WRITTEN["divided"])).double().eval(), torch.randn(1, 1, 6).double()).sites
    assert site.mixed is not None


def test_a_model_is_left_without_hooks_and_computes_as_before() -> None:
    model, x = Net(Apart()).double().eval(), torch.randn(2, 5, 6).double()
    before = model(x)
    follow(model, x)
    assert torch.equal(model(x), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_two_attentions_one_after_the_other_and_a_layer_that_two_read() -> None:
    """Each has a site with a reader of its own; where two layers read what heads give, none is the one that mixes."""

    class Twice(Apart):
        def __init__(self, again: bool) -> None:
            super().__init__()
            self.again, self.beside = again, nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (layer(x).unflatten(-1, (4, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
            mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return self.out(mixed) + (self.beside(mixed) if self.again else 0)

    example = torch.randn(2, 5, 6).double()
    (site,) = follow(Net(Twice(True)).double().eval(), example).sites
    assert site.mixed is None
    two = nn.Sequential(Net(Twice(False)), nn.Linear(5, 6), Net(By(WRITTEN["divided"]))).double().eval()
    first, second = follow(two, example).sites
    assert (first.module, second.module) == ("0.attention", "2.attention")
    assert [each.mixed and each.mixed.layer for each in (first, second)] == ["0.attention.out", "2.attention.out"]
    assert second.query.layer == "2.attention.q"


class Columns(Apart):
    """The layer that mixes reads the heads in another order, or some of them only."""

    def __init__(self, which: list[int]) -> None:
        super().__init__()
        self.which = which
        self.out = nn.Linear(4 * len(which), 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (4, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        heads = scaled_dot_product_attention(q, k, v)
        return self.out(torch.cat([heads[:, head] for head in self.which], -1))


def test_columns_of_heads_in_another_order_and_heads_that_are_read_not_at_all_or_twice() -> None:
    example = torch.randn(2, 5, 6).double()
    (site,) = follow(Net(Columns([2, 0, 3, 1])).double().eval(), example).sites
    assert site.mixed is not None
    assert site.mixed.where[:, 0].tolist() == [4, 12, 0, 8]  # head 0 is read by columns 4 to 7
    for which in ([0, 1, 2], [0, 1, 2, 3, 3]):
        (site,) = follow(Net(Columns(which)).double().eval(), example).sites
        assert site.mixed is None


class Recurrent(nn.Module):
    """Two layers of an LSTM, whose steps and last states are read as a function says."""

    def __init__(self, reads: Callable[[Tensor, tuple[Tensor, Tensor]], Tensor], width: int, **told: int) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(3, 4, **{"num_layers": 2, **told}), nn.Linear(width, 2)
        self.reads = reads

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.reads(*self.rnn(x)))


@pytest.mark.parametrize(
    ("reads", "width", "told", "columns"),
    [
        (lambda steps, _: steps, 4, {}, [4, 5, 6, 7]),  # outputs are those of the last layer
        (lambda steps, _: steps[-1, :, [3, 0]], 2, {}, [7, 4]),
        (lambda _, states: states[0][0], 4, {}, [0, 1, 2, 3]),
        (lambda _, states: states[0].transpose(0, 1).flatten(1), 8, {}, [*range(8)]),
        (lambda _, states: states[1][1], 4, {}, [4, 5, 6, 7]),
        (lambda steps, _: steps, 8, {"bidirectional": True}, [8, 9, 10, 11, 12, 13, 14, 15]),
        (lambda _, states: states[0][2], 4, {"bidirectional": True}, [8, 9, 10, 11]),
    ],
)
def test_which_units_of_a_recurrent_layer_stand_in_the_columns_of_who_reads_it(
    reads: Callable[[Tensor, tuple[Tensor, Tensor]], Tensor], width: int, told: dict[str, int], columns: list[int]
) -> None:
    seen = follow(Recurrent(reads, width, **told).double().eval(), torch.randn(5, 2, 3).double())
    assert set(seen.readers) == {"rnn"}
    assert {name: rows.where.tolist() for name, rows in seen.readers["rnn"].items()} == {"out": columns}
    assert (seen.escaped, seen.states) == (set(), set())


def test_a_recurrent_layer_whose_outputs_are_changed_has_no_reader_and_one_that_is_given_out_escapes() -> None:
    x = torch.randn(5, 2, 3).double()
    changed = follow(Recurrent(lambda steps, _: steps + steps.flip(-1), 4).double().eval(), x)
    assert changed.readers == {"rnn": {}}
    model = Recurrent(lambda steps, _: steps, 4).double().eval()
    model.out = nn.Identity()  # type: ignore[assignment]
    assert follow(model, x).escaped == {"rnn"}


class Padded(nn.Module):
    """Sequences of unlike lengths through one recurrent layer, then another, then a reader."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.GRU(3, 4), nn.GRU(4, 2, bidirectional=True)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, torch.tensor([5, 2]))
        again, _ = self.second(self.first(packed)[0])
        return self.out(pad_packed_sequence(again)[0])


def test_packed_sequences_and_their_padding() -> None:
    seen = follow(Padded().double().eval(), torch.randn(5, 2, 3).double())
    assert {name: rows.where.tolist() for name, rows in seen.readers["first"].items()} == {"second": [0, 1, 2, 3]}
    assert {name: rows.where.tolist() for name, rows in seen.readers["second"].items()} == {"out": [0, 1, 2, 3]}
    assert not seen.escaped


class Steps(nn.Module):
    """A cell, step by step. order: of its units in the state that it goes on from."""

    def __init__(self, cell: nn.Module, order: list[int], named: bool = False) -> None:
        super().__init__()
        self.cell, self.out, self.order, self.named = cell, nn.Linear(4, 2), order, named

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in x:
            given = self.cell(step, hx=state) if self.named else self.cell(step, state)
            units = given[0] if isinstance(given, tuple) else given
            state = (units[:, self.order], given[1]) if isinstance(given, tuple) else units[:, self.order]
        return self.out(units)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_are_one_layer_over_all_steps_unless_their_units_come_back_in_another_order(
    cell: type[nn.Module], named: bool
) -> None:
    x = torch.randn(3, 2, 3).double()
    seen = follow(Steps(cell(3, 4), [0, 1, 2, 3], named).double().eval(), x)
    assert seen.readers["cell"]["out"].where.tolist() == [0, 1, 2, 3]
    assert not seen.escaped
    assert follow(Steps(cell(3, 4), [1, 0, 2, 3], named).double().eval(), x).escaped == {"cell"}
    single = follow(Steps(cell(3, 4), [0, 1, 2, 3], named).double().eval(), x[:, :1])
    assert single.readers["cell"]["out"].where.tolist() == [0, 1, 2, 3]


def test_a_cell_that_goes_on_from_anothers_units_ties_both() -> None:
    class Handed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.out = nn.GRUCell(3, 4), nn.GRUCell(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.other(x, self.one(x)))

    assert follow(Handed().double().eval(), torch.randn(2, 3).double()).escaped == {"one", "other"}


def test_an_input_more_than_the_example_has_may_be_a_state_however_it_is_given() -> None:
    class Named(Joined):
        def forward(self, x: Tensor, *, state: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return super().forward(x, state)

    class Bare(Joined):
        def forward(self, *x: Tensor, **more: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return super().forward(*x)

    x = torch.randn(2, 5, 3).double()
    assert follow(Named().double().eval(), x).states == {1}
    assert follow(Named().double().eval(), {"x": x}).states == {1}
    assert follow(Bare().double().eval(), x).escaped == {"rnn"}


def test_a_layer_used_by_hand_reads_and_writes() -> None:
    class ByHand(Apart):
        def forward(self, x: Tensor) -> Tensor:
            q = nn.functional.linear(x, self.q.weight, self.q.bias)
            q, k, v = (each.unflatten(-1, (4, 4)).transpose(1, 2) for each in (q, self.k(x), self.v(x)))
            mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return nn.functional.linear(mixed, self.out.weight)

    (site,) = follow(Net(ByHand()).double().eval(), torch.randn(2, 5, 6).double()).sites
    assert site.layers == ("attention.q", "attention.k", "attention.v", "attention.out")
    assert site.query.where.tolist() == torch.arange(16).view(4, 4).tolist()


def test_norms_of_ones_own_and_of_torch_move_nothing_unless_they_give_another_shape() -> None:
    class Normed(Apart):
        def __init__(self, norm: nn.Module) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (layer(x).unflatten(-1, (4, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
            return self.out(scaled_dot_product_attention(self.norm(q), k, v).transpose(1, 2).flatten(2))

    class Scale(nn.Module):
        def __init__(self, shape: tuple[int, ...]) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.full(shape, 1.5))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    example = torch.randn(2, 5, 6).double()
    for norm in (nn.LayerNorm(4), nn.RMSNorm(4), Scale((4,)), Scale(())):
        (site,) = follow(Net(Normed(norm)).double().eval(), example).sites
        assert site.query.where.tolist() == torch.arange(16).view(4, 4).tolist()
    for norm in (Scale((4, 1, 4)), nn.Sequential(Scale((2, 1, 1)), nn.Flatten(0, 0))):
        with pytest.raises(RuntimeError) if isinstance(norm, nn.Sequential) else pytest.MonkeyPatch().context():
            assert follow(Net(Normed(norm)).double().eval(), example).unknown == ["attention"]
