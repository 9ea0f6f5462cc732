"""Which channels go, and where their constants go."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from raydistill.compression.copying import copy_of
from raydistill.compression.thinning.decide import CHANNELS, FILTERS, STRUCTURES, Plan, decide
from raydistill.compression.thinning.graph import Graph, trace


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


def decided(model: nn.Module, example: torch.Tensor, exact: bool = True) -> tuple[Plan, Graph, nn.Module]:
    graph = trace(model, example)
    groups = [i for i, group in enumerate(graph.groups) if group.blocked is None]
    work = copy_of(model)
    return decide(work, graph, groups, example, STRUCTURES, exact), graph, work


def rows(plan: Plan, graph: Graph, layer: str) -> list[int]:
    return plan.leaving(graph).get((layer, False), torch.zeros(0)).tolist()


def why(plan: Plan, graph: Graph, layer: str) -> dict[tuple[str, int], str]:
    """The reasons of the group that a layer writes."""
    (found,) = [
        plan.reasons[index]
        for index in plan.removed
        if layer in {member.layer for member in graph.groups[index].side("out")}
    ]
    return found


def test_reasons_name_the_layer_that_keeps_a_channel() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2, bias=False)).eval()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = 0, 0.5
        model[1].weight[:, 3] = 0
    plan, graph, _ = decided(model, torch.randn(2, 3))
    reasons = why(plan, graph, "0")
    assert rows(plan, graph, "0") == [3]
    assert reasons["filters", 1] == "no bias of 1 can stand for its constant"
    assert reasons["channels", 1] == "1 reads the channel too"
    assert ("channels", 3) not in reasons
    assert plan.folded == set()


class Added(nn.Module):
    """Two layers write to the same channels, two read them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)
        self.one, self.other = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x) + self.b(x)
        return self.one(y) + self.other(y)


def test_a_channel_of_several_layers_goes_where_all_of_them_are_zero_or_nobody_reads_it() -> None:
    model, example = Added().eval(), torch.randn(5, 3)
    with torch.no_grad():
        model.a.weight[:2] = 0
        model.b.weight[1] = 0
        model.one.weight[:, 2:] = 0
        model.other.weight[:, 3] = 0
    plan, graph, work = decided(model, example)
    assert rows(plan, graph, "a") == rows(plan, graph, "b") == [1, 3]
    assert plan.leaving(graph)["one", True].tolist() == plan.leaving(graph)["other", True].tolist() == [1, 3]
    assert plan.folded == {"one.bias", "other.bias"}
    reasons = why(plan, graph, "a")
    assert reasons["filters", 0] == "b writes to the same channel"
    assert reasons["channels", 2] == "other reads the channel too"
    assert torch.allclose(work(example), model(example), atol=1e-6)
    constant = model.a.bias[1] + model.b.bias[1]
    assert torch.allclose(work.one.bias, model.one.bias + constant * model.one.weight[:, 1], atol=1e-6)
    assert not any(layer.weight[[1, 3]].any() for layer in (work.a, work.b))
    assert not any(layer.weight[:, [1, 3]].any() for layer in (work.one, work.other))


def test_of_a_layer_that_is_all_zero_the_last_channel_stays() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[0].weight.zero_()
    plan, graph, work = decided(model, torch.randn(2, 3))
    assert rows(plan, graph, "0") == [0, 1, 2]
    reasons = why(plan, graph, "0")
    assert reasons["filters", 3] == reasons["channels", 3]
    assert reasons["filters", 3].endswith("keeps at least one")
    assert torch.allclose(work(torch.ones(1, 3)), model(torch.ones(1, 3)), atol=1e-6)


def test_a_running_mean_takes_up_what_a_layer_without_a_bias_gives_before_a_batch_norm() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1, bias=False), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1)
    ).eval()
    example = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, 0.5
    plan, graph, work = decided(model, example)
    assert rows(plan, graph, "0") == [2]
    assert plan.folded == {"2.running_mean"}
    assert torch.allclose(work[2].running_mean, -0.5 * model[1].weight[:, 2].flatten(), atol=1e-6)
    assert torch.allclose(work(example), model(example), atol=1e-6)


def grouped(zero: list[int], groups: int = 4) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=groups), nn.Conv2d(8, 2, 1)).eval()
    with torch.no_grad():
        model[0].weight[zero] = 0
    return model, torch.randn(2, 3, 4, 4)


def test_grouped_convolutions_lose_as_many_channels_in_each_group() -> None:
    model, example = grouped([0, 1, 3, 4, 7])
    plan, graph, work = decided(model, example)
    assert rows(plan, graph, "0") == [0, 3, 4, 7]  # the second of the first group stays
    assert why(plan, graph, "0")["filters", 1] == "the groups of 1 keep equal sizes"
    assert torch.allclose(work(example), model(example), atol=1e-5)
    for zero in ([0, 3, 4], [0, 1, 2, 3]):
        plan, graph, _ = decided(*grouped(zero))
        assert rows(plan, graph, "0") == []
    plan, graph, _ = decided(*grouped([0, 2, 5, 6], groups=2))
    assert rows(plan, graph, "0") == [0, 2, 5, 6]
    plan, graph, _ = decided(*grouped([0, 2, 3, 5], groups=2))
    assert rows(plan, graph, "0") == [0, 5]


def test_group_norms_lose_whole_groups() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.GroupNorm(3, 6), nn.Conv2d(6, 2, 1)).eval()
    with torch.no_grad():
        model[2].weight[:, [0, 1, 2]] = 0
    example = torch.randn(2, 3, 4, 4)
    plan, graph, work = decided(model, example)
    assert rows(plan, graph, "0") == [0, 1]
    assert why(plan, graph, "0")["channels", 2] == "1 normalizes it together with one that stays"
    assert torch.allclose(work(example), model(example), atol=1e-5)


def test_a_constant_that_meets_padding_is_carried_where_outputs_have_to_stay_exact_and_folded_where_not() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 3, padding=1)).eval()
    with torch.no_grad():
        model[0].weight[:3], model[0].bias[:3] = 0, torch.tensor([0.5, -2.0, 1.0])
    example = torch.randn(2, 3, 5, 5)
    plan, graph, work = decided(model, example)
    assert rows(plan, graph, "0") == [0, 2]
    assert (plan.folded, plan.carried) == (set(), {"1": {1}})  # the largest carries the others
    ratio = model[1].weight[:, 1] - 0.25 * model[1].weight[:, 0] - 0.5 * model[1].weight[:, 2]
    assert torch.allclose(work[1].weight[:, 1], ratio, atol=1e-6)
    assert torch.allclose(work(example), model(example), atol=1e-5)
    assert why(plan, graph, "0")["filters", 1] == "no bias of 1 can stand for its constant"
    plan, graph, work = decided(model, example, exact=False)
    assert rows(plan, graph, "0") == [0, 1, 2]
    assert (plan.folded, plan.carried) == ({"1.bias"}, {})
    inside = (..., slice(1, 4), slice(1, 4))
    assert torch.allclose(work(example)[inside], model(example)[inside], atol=1e-5)


def test_a_constant_that_meets_padding_in_groups_stays() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        model[0].weight[[0, 2]], model[0].bias[[0, 2]] = 0, 0.5
    plan, graph, _ = decided(model, torch.randn(2, 3, 5, 5))
    assert rows(plan, graph, "0") == []
    assert why(plan, graph, "0")["filters", 0] == "no bias of 1 can stand for its constant"
