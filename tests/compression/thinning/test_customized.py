"""A layer that the library does not know is one node, whatever it computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raydistill.compression.thinning.customized import DependencyGraph, customized, one_node_each
from tests.compression.layer_kinds.test_newcomer import Net


def test_of_layers_that_the_library_knows_none_is_customized() -> None:
    known = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Linear(4, 2), nn.LSTM(2, 2))
    assert customized(known) == []
    assert DependencyGraph(known).pruners == {}


def test_layers_of_ones_own_tell_the_library_their_sizes_and_cut_nothing() -> None:
    model = Net()
    assert customized(model) == [model.first, model.gain, model.second, model.shuffle, model.last]
    graph = DependencyGraph(model)
    pruner = graph.get_pruner_of_module(model.first)
    assert (pruner.get_in_channels(model.first), pruner.get_out_channels(model.first)) == (6, 10)
    assert pruner.prune_out_channels(model.first, [0, 1]) is model.first
    assert model.first.kernel.shape == (6, 10)
    assert graph.is_out_channel_pruning_fn(pruner.prune_out_channels)
    assert not graph.is_out_channel_pruning_fn(pruner.prune_in_channels)


def read_by_the_last_step(output: Tensor) -> list[str]:
    assert output.grad_fn is not None
    return [node.name() for node, _ in output.grad_fn.next_functions if node is not None]


def test_autograd_sees_one_step_from_inputs_to_output_and_the_values_stay() -> None:
    layer = Net().first
    x = torch.randn(2, 6, requires_grad=True)
    outside = layer(x)
    with one_node_each(layer):
        inside = layer(x)
    assert torch.equal(inside, outside)
    assert read_by_the_last_step(inside) == ["torch::autograd::AccumulateGrad"], "the input itself"
    assert read_by_the_last_step(outside) != read_by_the_last_step(inside)
    assert read_by_the_last_step(layer(x)) == read_by_the_last_step(outside), "it is over"
