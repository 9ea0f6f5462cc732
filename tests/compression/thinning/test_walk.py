"""Walking over the library's graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.thinning import walk
from raydistill.compression.thinning.customized import DependencyGraph
from raydistill.compression.thinning.renumbering import Lost
from raydistill.compression.thinning.walk import coupled_with


class Net(nn.Module):
    """A sum, a concatenation, a split and a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(3, 4, 1)
        self.norm, self.d, self.e = nn.BatchNorm2d(10), nn.Conv2d(5, 5, 1), nn.Conv2d(5, 5, 1)
        self.fc = nn.Linear(5 * 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        both = self.norm(torch.cat([self.a(x) + self.b(x), self.c(x)], 1))
        first, second = both.split([5, 5], 1)
        return self.fc((self.d(first) + self.e(second)).flatten(1))


def graph_of(model: nn.Module) -> Any:
    graph = DependencyGraph(model)
    with torch.enable_grad():
        return graph.build_dependency(model.eval(), torch.rand(1, 3, 2, 2), verbose=False)


def test_it_finds_what_the_library_finds() -> None:
    model = Net()
    graph = graph_of(model)
    for layer in (model.a, model.b, model.c, model.d, model.e, model.fc):
        pruner = graph.get_pruner_of_module(layer)
        theirs = graph.get_pruning_group(layer, pruner.prune_out_channels, list(range(pruner.get_out_channels(layer))))
        ours = coupled_with(graph, layer)
        assert [(each.node, each.handler) for each in ours] == [(i.dep.target, i.dep.handler) for i in theirs.items]
        for each, item in zip(ours, theirs.items, strict=True):
            pairs = zip(each.where.tolist(), each.channels.tolist(), strict=True)
            assert sorted(pairs) == sorted(zip(item.idxs, item.root_idxs, strict=True))


def test_more_indices_than_a_walk_may_have_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the flattening of 5 channels to 20 is past the limit: it is given up before."""
    model = Net()
    graph = graph_of(model)
    monkeypatch.setattr(walk, "_MOST_INDICES", 12)
    made: list[int] = []
    mapped = walk.renumbered
    monkeypatch.setattr(walk, "renumbered", lambda *given: made.append(mapped(*given).shape[1]) or mapped(*given))
    with pytest.raises(Lost):
        coupled_with(graph, model.d)
    assert 20 not in made


def reached(model: nn.Module, layer: nn.Module, example: Tensor) -> dict[str, tuple[list[int], list[int]]]:
    """What goes with a layer's rows, by module and function: positions and channels."""
    graph = DependencyGraph(model)
    with torch.enable_grad():
        graph.build_dependency(model.eval(), example, verbose=False)
    names = {module: name for name, module in model.named_modules()}
    return {
        f"{names[each.node.module]} {each.handler.__name__.removeprefix('prune_')}": (
            each.where.tolist(), each.channels.tolist(),
        )
        for each in coupled_with(graph, layer) if each.node.module in names
    }  # fmt: skip


class Gate(nn.Module):
    """One layer writes values and their gates: halves, each of which is a channel with its gate. again: in thirds."""

    def __init__(self, again: bool = False) -> None:
        super().__init__()
        self.both, self.out, self.again = nn.Linear(3, 12), nn.Linear(6, 2), again
        self.other = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        both = self.both(x)
        value, gate = both.chunk(2, -1)
        found = self.out(value * gate.sigmoid())
        if self.again:
            one, two, three = both.chunk(3, -1)
            found = found + self.other(one * two * three)
        return found


def test_a_gate_that_lies_in_the_layer_of_what_it_gates_is_one_channel_with_it() -> None:
    model = Gate()
    found = reached(model, model.both, torch.randn(2, 3))
    where, channels = found["both out_channels"]
    assert dict(zip(where, channels, strict=True)) == {row: row % 6 for row in range(12)}
    where, channels = found["out in_channels"]
    assert dict(zip(where, channels, strict=True)) == {column: column for column in range(6)}
    twice = Gate(again=True)
    where, channels = reached(twice, twice.both, torch.randn(2, 3))["both out_channels"]
    assert dict(zip(where, channels, strict=True)) == {row: row % 2 for row in range(12)}, "pairs and triples tie these"


class Repeated(nn.Module):
    """The same channels side by side twice, before a layer that reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, 4), nn.Linear(3, 2), nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return self.out(torch.cat([a, self.b(x), a], -1))


def test_channels_that_a_layer_reads_at_several_places() -> None:
    model = Repeated()
    where, channels = reached(model, model.a, torch.randn(2, 3))["out in_channels"]
    pairs = sorted(zip(where, channels, strict=True))
    assert {place for place, _ in pairs} >= {0, 1, 2, 3}
    assert all(channel == place % 6 for place, channel in pairs)


def test_a_walk_that_takes_too_many_steps_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    graph = graph_of(model)
    steps = []
    along = walk._Walk._along
    monkeypatch.setattr(walk._Walk, "_along", lambda self, *given: steps.append(1) or along(self, *given))
    coupled_with(graph, model.d)
    count = len(steps)
    monkeypatch.setattr(walk, "_MOST_STEPS", count)
    coupled_with(graph, model.d)
    monkeypatch.setattr(walk, "_MOST_STEPS", count - 1)
    with pytest.raises(Lost):
        coupled_with(graph, model.d)
