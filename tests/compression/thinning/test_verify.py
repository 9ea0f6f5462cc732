"""A plan is taken only where the outputs stay."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.copying import copy_of
from raydistill.compression.structure import Thinned
from raydistill.compression.structure.cut import cut
from raydistill.compression.thinning.decide import STRUCTURES
from raydistill.compression.thinning.graph import trace
from raydistill.compression.thinning.verify import difference, settle


def test_the_difference_is_relative_to_the_largest_value_of_each_output() -> None:
    one, ten = torch.tensor([1.0, -2.0]), torch.tensor([10.0, -20.0])
    assert difference([one, ten], [one, ten]) == 0.0
    assert difference([one, ten], [one + 0.5, ten + 0.5]) == pytest.approx(0.25)
    assert difference([one], [ten[:1]]) == math.inf
    assert difference([one], [one, one]) == math.inf
    assert difference([torch.zeros(2)], [torch.ones(2)]) == math.inf
    assert difference([torch.zeros(2)], [torch.zeros(2)]) == 0.0
    assert difference([torch.zeros(0)], [torch.zeros(0)]) == 0.0


class Net(nn.Module):
    """hidden: whether the second layer's width is looked at where no trace sees it."""

    def __init__(self, hidden: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)
        self.hidden = hidden

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.b(torch.relu(self.a(x))))
        return self.c(y) + (float(len(self.b.weight)) if self.hidden else 0.0)


@pytest.mark.parametrize("hidden", [False, True])
def test_what_moves_the_outputs_is_left_alone_and_the_rest_goes(hidden: bool) -> None:
    torch.manual_seed(0)
    model, example = Net(hidden).eval(), torch.randn(2, 3)
    with torch.no_grad():
        for layer in (model.a, model.b):
            layer.weight[1], layer.bias[1] = 0, 0
    graph = trace(model, example)
    found = settle(copy_of(model), model, graph, example, STRUCTURES, True)
    leaving = found.plan.leaving(graph)
    gone = {layer: positions.tolist() for (layer, is_column), positions in leaving.items() if not is_column}
    assert gone == ({"a": [1]} if hidden else {"a": [1], "b": [1]})
    assert found.drift < 1e-5
    assert ("the outputs would change" in {r for of in found.plan.reasons.values() for r in of.values()}) == hidden
    thin = copy_of(found.folded)
    cut(thin, Thinned.of(thin, leaving).sides())
    assert torch.allclose(thin(example), model(example), atol=1e-5)
