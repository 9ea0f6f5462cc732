from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.trace import INPUT, plain_name, trace


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 4), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.layer(x))


def test_each_visit_of_a_module_says_what_it_read_and_gave() -> None:
    block = Block()
    seen = trace(nn.Sequential(block, block), torch.zeros(2, 4))
    assert [call.function for call in seen.calls] == [INPUT, "linear", "dropout", "add", "linear", "dropout", "add"]
    assert [(visit.module, visit.inputs, visit.outputs) for visit in seen.visits] == [
        *(("0.layer", (0,), (1,)), ("0.drop", (1,), (2,)), ("0", (0,), (3,))),
        *(("0.layer", (3,), (4,)), ("0.drop", (4,), (5,)), ("0", (3,), (6,))),
        ("", (0,), (6,)),
    ]
    assert [seen.calls[index].inputs for index in (3, 6)] == [(0, 2), (3, 5)]


def test_what_follows_what_can_be_had_without_counting() -> None:
    net, x = nn.Sequential(nn.Linear(4, 3), nn.GRU(3, 2)), torch.zeros(5, 1, 4)
    counted, plain = trace(net, x), trace(net, x, macs=False)
    assert counted.macs == 5 * (4 * 3 + 3 * 3 * 2 + 3 * 2 * 2)
    assert plain.macs == 0
    assert {call.macs for call in plain.calls} == {0}
    assert plain.visits == counted.visits
    assert [call.function for call in plain.calls] == [call.function for call in counted.calls]


def test_the_model_and_the_random_state_stay_as_they_were() -> None:
    block = Block().train()
    block.layer.eval()
    state = torch.get_rng_state()
    trace(block, torch.zeros(1, 4))
    assert (block.training, block.layer.training, block.drop.training) == (True, False, True)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in block.modules())


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("__add__", "add"), ("__iadd__", "add"), ("__radd__", "add"), ("add_", "add"), ("__rmatmul__", "matmul"),
        ("__itruediv__", "div"), ("truediv", "div"), ("relu_", "relu"), ("__get__", "attribute"),
        ("__invert__", "invert"), ("__index__", "index"), ("__rshift__", "rshift"), ("index_add", "index_add"),
    ],
)  # fmt: skip
def test_an_operator_has_one_name_however_it_is_spelt(name: str, plain: str) -> None:
    assert plain_name(name) == plain
