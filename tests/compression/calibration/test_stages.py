"""A network run as a whole, and one module of a chain at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raydistill.compression.calibration.stages import Enough, Link, Whole, captured, moved
from tests.compression.calibration.test_survey import Block, Blocks

CPU = torch.device("cpu")


def batches() -> list[tuple[Tensor]]:
    return [(torch.full((2, 2), float(i)),) for i in range(3)]


@torch.no_grad()
def test_links_one_by_one_give_what_the_network_gives() -> None:
    torch.manual_seed(0)
    model = Blocks()
    read: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].clone()))
    Whole(model, batches).run()
    inputs = captured(model, "blocks.0", batches)
    assert len(inputs) == 3
    for name in ("blocks.0", "blocks.1", "last"):
        link = Link(model.get_submodule(name), inputs)
        link.run()  # as often as one likes
        last = link.outputs()
    assert all(torch.equal(one, other) for one, other in zip(last, read, strict=True))


@torch.no_grad()
def test_a_chain_that_is_passed_over_gives_what_it_is_told_and_comes_back() -> None:
    model = Blocks()
    read: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    last = [torch.full((2, 4), 7.0 + i) for i in range(3)]
    Whole(model, batches, ("blocks.0", "blocks.1", "last"), last).run()
    assert [float(values[0, 0]) for values in read] == [7.0, 8.0, 9.0]
    assert all("forward" not in vars(module) for module in model.modules())
    Whole(model, batches).run(1)
    assert len(read) == 4
    assert float(read[3][0, 0]) != 7.0


class Doubles(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2.0)


@torch.no_grad()
def test_a_module_may_write_to_what_it_is_given() -> None:
    link = Link(Doubles(), [((torch.ones(2),), {})])
    link.run()
    link.run()
    assert link.outputs()[0].tolist() == [2.0, 2.0]


def test_a_pass_ends_where_somebody_has_seen_enough() -> None:
    model = nn.Sequential(Block(), Block())
    ran: list[int] = []

    def enough(module: nn.Module, inputs: object) -> None:
        ran.append(0)
        raise Enough

    model[0].register_forward_hook(lambda module, inputs, output: ran.append(1))
    model[1].register_forward_pre_hook(enough)
    Whole(model, lambda: [(torch.ones(1, 4),)] * 2).run()
    assert ran == [1, 0, 1, 0]


def test_copies_of_whatever_holds_tensors() -> None:
    given = {"a": (torch.ones(1), [torch.zeros(1), 3]), "b": None}
    found = moved(given, CPU)
    assert found["a"][1][1] == 3
    assert found["b"] is None
    found["a"][0].add_(1.0)
    assert float(given["a"][0]) == 1.0  # type: ignore[index,arg-type]
