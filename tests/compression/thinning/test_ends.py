"""A trace ends before a recurrent layer and begins anew behind it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from raydistill.compression.thinning.ends import left_as_they_are, recurrent


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.lstm, self.after = nn.Linear(3, 4), nn.LSTM(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, (hidden, _) = self.lstm(self.before(x))
        return self.after(y), hidden


def test_what_reaches_it_is_told_and_what_comes_out_of_it_is_marked() -> None:
    model = Net()
    marked: list[tuple[Tensor, str]] = []

    def mark(tensor: Tensor, why: str) -> Tensor:
        marked.append((tensor, why))
        return tensor.detach() * 0

    assert [name for name, _ in recurrent(model)] == ["lstm"]
    x = torch.randn(2, 1, 3)
    with left_as_they_are(model, mark, {}, {}) as reached:
        out, hidden = model(x)
    why = "lstm, which is recurrent: only its units are thinned"
    assert [why for _, why in reached] == [f"reaches {why}"]
    assert torch.equal(reached[0][0], model.before(x))
    assert {why for _, why in marked} == {f"comes out of {why}"}
    assert len(marked) == 3  # the output, the hidden state and the cell
    assert torch.equal(out, model.after.bias.expand_as(out))
    assert not hidden.any()
    left = model(x)[1]
    assert left.any(), "nothing is left in the model"
    assert not model.lstm._forward_hooks
    assert not model.lstm._forward_pre_hooks


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.before(x)
        maps = maps.view(len(x), 2, 3, *x.shape[2:]).transpose(1, 2).reshape(len(x), 6, *x.shape[2:])
        return self.after(maps)


def test_a_shuffle_of_channels_ends_it_and_other_views_do_not() -> None:
    model, why = Shuffled(), "has its channels shuffled with others, so that none can go alone"
    marked: list[str] = []

    def mark(tensor: Tensor, why: str) -> Tensor:
        marked.append(why)
        return tensor * 1.0

    x = torch.randn(2, 3, 4, 4)
    with left_as_they_are(model, mark, {}, {}) as reached:
        model(x)
        tokens = model.before(x).flatten(2).transpose(1, 2)
        windows = model.before(x).movedim(1, -1).reshape(2, 2, 2, 2, 2, 6)
        tokens.reshape(2, 16, 2, 3), windows.reshape(2, 4, 4, 6)
    assert marked == [why]
    assert [reason for _, reason in reached] == [why]
    assert torch.equal(reached[0][0], model.before(x))


class ByHand(nn.Module):
    """A block of two layers, whose weights its own code multiplies by, or which are called."""

    def __init__(self, called: bool) -> None:
        super().__init__()
        self.first, self.into, self.out, self.last = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 4), nn.Linear(4, 2)
        self.called = called

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        if self.called:
            return self.last(self.out(self.into(x)))
        inside = nn.functional.linear(x, self.into.weight, self.into.bias)
        return self.last(nn.functional.linear(inside, self.out.weight, self.out.bias))


@pytest.mark.parametrize("called", [True, False])
def test_what_goes_into_a_block_ends_and_what_reads_from_one_begins_anew(called: bool) -> None:
    model, marked = ByHand(called), []

    def mark(tensor: Tensor, why: str) -> Tensor:
        marked.append((tensor, why))
        return tensor * 0

    x = torch.randn(2, 3)
    inside = model.into(model.first(x))
    with left_as_they_are(model, mark, {"into": "goes in"}, {"out": "comes out"}) as reached:
        result = model(x)
    assert {(why, torch.equal(tensor, inside)) for tensor, why in reached} == {("goes in", True)}
    assert (marked[0][1], torch.equal(marked[0][0], inside)) == ("comes out", True)
    assert torch.equal(result, model.last(model.out.bias.expand(2, 4)))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("before", "after", "shuffled"),
    [
        ((2, 6, 4, 4), (2, 2, 3, 4, 4), True),
        ((2, 6, 4, 4), (2, 3, 2, 4, 4), True),
        ((2, 6, 4, 4), (2, 6, 1, 4, 4), False),
        ((2, 6, 4, 4), (2, 1, 6, 4, 4), False),
        ((2, 6, 4, 4), (2, 2, 3, 2, 8), False),  # another map
        ((2, 6, 4, 4), (4, 3, 1, 4, 4), False),  # another batch
        ((2, 6, 4, 4), (2, 6, 16), False),
        ((2, 6, 16), (2, 2, 3, 4, 4), False),
    ],
)
def test_which_views_split_channels_into_groups(
    before: tuple[int, ...], after: tuple[int, ...], shuffled: bool
) -> None:
    marked: list[str] = []

    def mark(tensor: Tensor, why: str) -> Tensor:
        marked.append(why)
        return tensor + 1

    for views in (Tensor.view, Tensor.reshape):
        with left_as_they_are(nn.Identity(), mark, {}, {}) as reached:
            result = views(torch.zeros(before, requires_grad=True), after)
            views(torch.zeros(before), after)  # which nobody follows
        assert len(reached) == len(marked) == shuffled
        assert bool(result.any()) == shuffled
        marked.clear()


def test_packed_outputs_are_marked_and_states_that_are_given_end_it() -> None:
    model = nn.GRU(3, 4)
    state = torch.zeros(1, 2, 4, requires_grad=True)
    packed = pack_padded_sequence(torch.randn(5, 2, 3), torch.tensor([5, 2]))
    with left_as_they_are(model, lambda tensor, why: tensor * 0, {}, {}) as reached:
        output, last = model(packed, hx=state)
    assert not output.data.any()
    assert not last.any()
    assert [tensor is state for tensor, _ in reached] == [True]
