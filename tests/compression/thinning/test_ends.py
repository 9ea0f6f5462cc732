"""A trace ends before a recurrent layer and begins anew behind it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
