from __future__ import annotations

import copy

import torch
from torch import nn

from raydistill.training.packing.stack import Stack, put_into, shapes_of, stacked


def networks(count: int = 3) -> list[nn.Module]:
    torch.manual_seed(0)
    return [
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for _ in range(count)
    ]


def test_a_network_keeps_its_objects_values_and_memory_format_and_shares_the_stacks_memory() -> None:
    nets = networks()
    before = [copy.deepcopy(net.state_dict()) for net in nets]
    parameters = [list(net.parameters()) for net in nets]
    stack = Stack(nets)
    whole = stack.part(0, 3)
    for place, net in enumerate(nets):
        assert all(a is b for a, b in zip(net.parameters(), parameters[place], strict=True))
        assert all(torch.equal(value, before[place][name]) for name, value in net.state_dict().items())
        assert net[0].weight.stride() == nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last).weight.stride()  # type: ignore[call-overload,index]
        assert stack.holds(place)
    with torch.no_grad():
        nets[1][0].weight.fill_(7.0)  # type: ignore[index]
        whole.parameters["0.bias"][2] = 5.0
        stack.part(2, 3).buffers["1.running_mean"].fill_(3.0)
    assert bool((whole.parameters["0.weight"][1] == 7).all())
    assert bool((nets[2][0].bias == 5).all())  # type: ignore[index]
    assert bool((nets[2][1].running_mean == 3).all())  # type: ignore[index]
    assert bool((nets[1][1].running_mean == 0).all())  # type: ignore[index]


def test_gradients_of_the_stack_are_those_of_the_networks() -> None:
    nets = networks()
    stack = Stack(nets, frozenset({"0.weight"}))
    stack.begin_gradients()
    part = stack.part(1, 3)
    (part.parameters["0.weight"].sum() * 2).backward()
    assert [float(net[0].weight.grad.sum()) for net in nets] == [0.0, 108.0, 108.0]  # type: ignore[index]
    assert nets[0][0].bias.grad is None  # type: ignore[index]
    stack.clear_gradients([1])
    assert [float(net[0].weight.grad.sum()) for net in nets] == [0.0, 0.0, 108.0]  # type: ignore[index]


def test_what_was_replaced_is_not_held_and_release_gives_each_its_own() -> None:
    nets = networks()
    stack = Stack(nets)
    nets[0][0].weight = nn.Parameter(torch.zeros(2, 2, 3, 3))  # type: ignore[index]
    assert [stack.holds(place) for place in range(3)] == [False, True, True]
    assert shapes_of(nets[0]) != shapes_of(nets[1]) == shapes_of(nets[2])
    stack.release()
    weight = nets[1][0].weight  # type: ignore[index]
    assert weight.untyped_storage().nbytes() == weight.numel() * 4
    assert not stack.holds(1)


def test_stacked_keeps_each_layout() -> None:
    tensors = [torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last) for _ in range(2)]
    together = stacked(tensors)
    assert together.shape == (2, 4, 3, 5, 5)
    assert together[1].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(together[1], tensors[1])
    assert stacked([torch.tensor(3), torch.tensor(4)]).tolist() == [3, 4]


def test_a_tied_parameter_is_put_in_wherever_it_is() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    given = torch.ones(3, 2, 2)
    put_into(net, {"0.weight": given}, {})
    assert net[0].weight is given is net[1].weight
