"""What went is counted, and what stays with its reason."""

from __future__ import annotations

import torch
from torch import nn

from raydistill.compression.copying import copy_of
from raydistill.compression.thinning.account import kept, removed
from raydistill.compression.thinning.decide import STRUCTURES, decide
from raydistill.compression.thinning.graph import trace


def test_every_zeroed_structure_goes_or_is_accounted_for() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    with torch.no_grad():
        model[0].weight[[1, 4]], model[0].bias[[1, 4]] = 0, 0
        model[0].weight[:, 2] = 0  # reads an input of the network
        model[2].weight[1] = 0  # an output of the network
    example = torch.randn(1, 3)
    graph = trace(model, example)
    groups = [i for i, group in enumerate(graph.groups) if group.blocked is None]
    plan = decide(copy_of(model), graph, groups, example, STRUCTURES, True)
    assert removed(plan, graph, model) == {"0": 2}
    assert {str(one) for one in kept(plan, graph, model, STRUCTURES)} == {
        "0.weight: 1 zero channel kept (reads an input of the network)",
        "2.weight: 1 zero filter kept (an output of the network)",
    }
    assert {str(one) for one in kept(plan, graph, model, ("filters",))} == {
        "2.weight: 1 zero filter kept (an output of the network)",
    }
