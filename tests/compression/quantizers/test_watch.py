"""Looking on: each call is told of where it is, in order, with what it was given before it was written over."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydistill.compression.quantizers import watch
from raydistill.compression.quantizers.watch import Places, computed, given, watching


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.fc(x))
        y = y + x
        return F.relu(y, inplace=True)


def test_calls_have_the_place_of_the_module_that_runs_them_and_are_counted_in_it() -> None:
    model = nn.Sequential(Block(), Block())
    seen: list[watch.Place] = []
    with watching(model, lambda place, arguments, result: seen.append(place)):
        model(torch.ones(1, 3))
    own = [("{}.fc", "linear", 0), ("{}", "relu", 0), ("{}", "add", 0), ("{}", "relu", 1)]
    assert seen == [(name.format(block), function, at) for block in "01" for name, function, at in own]
    model(torch.ones(1, 3))
    assert len(seen) == 8  # nobody looks on any more
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_is_written_over_in_place_is_told_as_it_was() -> None:
    told: dict[watch.Place, tuple[float, float]] = {}

    def see(place: watch.Place, arguments: Any, result: Any) -> None:
        told[place] = (float(computed(arguments)[0].min()), float(result.min()))

    model = nn.Sequential(nn.ReLU(inplace=True))
    with watching(model, see):
        model(torch.tensor([-2.0, 1.0]))
    assert told == {("0", "relu", 0): (-2.0, 0.0)}


def test_what_may_be_written_over_is_copied_as_it_is_said() -> None:
    copied: list[float] = []

    def copy(values: Tensor) -> Tensor:
        copied.append(float(values.min()))
        return values.clone()

    model = nn.Sequential(nn.ReLU(inplace=True), nn.ReLU())
    with watching(model, lambda *told: None, copy):
        model(torch.tensor([-2.0, 1.0]))
    assert copied == [-2.0]  # not for the second, which writes over nothing


def test_hooks_go_when_the_network_fails() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    try:
        with watching(model, lambda *told: None):
            model(torch.ones(1, 4))
    except RuntimeError:
        pass
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_computed_tells_each_tensor_once_and_no_parameters() -> None:
    x, y, weight = torch.ones(1), torch.zeros(1), nn.Parameter(torch.ones(1))
    assert [id(tensor) for tensor in computed([x, weight, [y, x], 3])] == [id(x), id(y)]


def test_given_is_the_first_tensor_of_floats() -> None:
    x = torch.ones(1)
    assert given((x, torch.zeros(1))) is x
    assert given(torch.ones(1, dtype=torch.int64)) is None
    assert given(3) is None


def test_places_outside_of_a_network_are_none() -> None:
    places = Places()
    assert places.next("add") is None
    places.enter("")
    assert places.next("add") == ("", "add", 0)
    places.enter("fc")
    assert places.depth == 2
    places.leave()
    assert places.next("add") == ("", "add", 1)
