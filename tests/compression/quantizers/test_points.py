"""Calls have names that files can say, and keys that no other has."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydistill.compression.quantizers.points import ACCUMULATOR, RESULT, Point, calls_of, points_of, readers
from raydistill.compression.trace import trace


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"fc": nn.Linear(3, 3), "act": nn.ReLU()})

    def forward(self, x: Tensor) -> Tensor:
        y = self.block["act"](self.block["fc"](x))
        y = self.block["act"](y - 1)
        return F.relu(y + x) + F.relu(x)


def seen():
    model = Net()
    found = trace(model, (torch.ones(1, 3),), macs=False)
    return found, points_of(model, found)


def test_names_are_the_modules_or_the_functions_with_their_count() -> None:
    _, points = seen()
    assert [point.name for point in points.values()] == [
        "block.fc", "block.act", "sub_0", "block.act", "add_0", "relu_0", "relu_1", "add_1",
    ]  # fmt: skip
    twice = [point for point in points.values() if point.name == "block.act"]
    assert twice[0] == twice[1]


def test_keys_tell_apart_what_of_a_call_is_rounded() -> None:
    point = Point("fc", "fc", "linear", 0)
    keys = {replace(point, argument=argument).key for argument in (RESULT, ACCUMULATOR, 0, 1)}
    assert len(keys) == 4
    assert point.key == "fc:linear:0"


def test_readers_and_calls() -> None:
    found, points = seen()
    at = {point.name: index for index, point in points.items()}
    assert [call.function for call in readers(found)[at["add_0"]]] == ["relu"]
    assert calls_of(found, ["add"]) == [at["add_0"], at["add_1"]]
    assert found.calls[at["add_0"]].arguments == (at["block.act"], 0)
    assert found.calls[at["sub_0"]].arguments == (2,)
