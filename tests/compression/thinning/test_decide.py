"""Which channels go, and where their constants go."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.compression.copying import copy_of
from raydistill.compression.thinning.decide import CHANNELS, FILTERS, STRUCTURES, decide
from raydistill.compression.thinning.graph import trace


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0, 0.5  # a filter of zeros that gives a constant
        model[2].weight[:, 3] = 0  # a channel that nobody reads
    return model


def gone(model: nn.Sequential, structures: tuple[str, ...], allowed: list[int] | None = None) -> dict[str, list[int]]:
    example = torch.randn(2, 3)
    graph = trace(model, example)
    groups = [i for i, group in enumerate(graph.groups) if group.blocked is None] if allowed is None else allowed
    before = model(example)
    work = copy_of(model)
    plan = decide(work, graph, groups, example, structures, True)
    assert torch.allclose(work(example), before, atol=1e-6), "the outputs stay"
    leaving = plan.leaving(graph)
    for layer, is_column in leaving:
        module = work.get_submodule(layer)
        part = module.weight.T if is_column else module.weight  # type: ignore[operator,union-attr]
        assert not part[leaving[layer, is_column]].any(), "what goes is zero"  # type: ignore[index]
    return {f"{layer}:{'in' if is_column else 'out'}": which.tolist() for (layer, is_column), which in leaving.items()}


def test_a_constant_goes_into_the_next_bias_and_an_unread_channel_goes_with_its_filter() -> None:
    model = network()
    assert gone(model, STRUCTURES) == {"0:out": [1, 3], "2:in": [1, 3]}


@pytest.mark.slow
def test_only_the_structures_that_are_asked_for() -> None:
    assert gone(network(), (FILTERS,)) == {"0:out": [1], "2:in": [1]}
    assert gone(network(), (CHANNELS,)) == {"0:out": [3], "2:in": [3]}
    assert gone(network(), STRUCTURES, allowed=[]) == {}


def test_what_goes_frees_what_is_behind_it() -> None:
    model = network()
    with torch.no_grad():
        model[2].weight[0] = 0
        model[2].weight[0, 1] = 1.0  # reads the constant only
    assert gone(model, STRUCTURES) == {"0:out": [1, 3], "2:in": [1, 3], "2:out": [0], "4:in": [0]}


def test_a_constant_without_a_bias_to_go_to_stays_and_it_is_said_why() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2, bias=False)).eval()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0, 0.5
    example = torch.randn(2, 3)
    graph = trace(model, example)
    groups = [i for i, group in enumerate(graph.groups) if group.blocked is None]
    plan = decide(copy_of(model), graph, groups, example, STRUCTURES, True)
    leaving = plan.leaving(graph)
    (index,) = groups
    stays = {channel for channel in range(5) if not plan.removed[index][channel]}
    assert stays == {0, 1, 2, 3, 4}
    assert leaving == {}


class TwoReaders(nn.Module):
    """Filters 0 and 1 of the writer are zero, with unlike biases. A padded convolution reads both of these constants;
    another one reads the first of them alone, as a padded depthwise convolution has left it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writer, self.between = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.one, self.other = nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        with torch.no_grad():
            self.writer.weight[:2], self.writer.bias[:2] = 0, torch.tensor([0.5, 1.0])
            self.between.weight[1] = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        written = self.writer(images)
        return torch.cat([self.one(written), self.other(self.between(written))], 1)


def test_constants_that_meet_padding_are_carried_by_as_few_channels_as_serve_all_that_read_them() -> None:
    torch.manual_seed(0)
    model, example = TwoReaders().eval(), torch.randn(2, 3, 6, 6)
    graph = trace(model, example)
    groups = [i for i, group in enumerate(graph.groups) if group.blocked is None]
    work = copy_of(model)
    plan = decide(work, graph, groups, example, STRUCTURES, True)
    # the first has to stay, so it carries the second, larger one too
    assert [gone.tolist() for (layer, _), gone in plan.leaving(graph).items() if layer == "writer"] == [[1]]
    assert torch.allclose(work(example), model(example), atol=1e-6)
