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
