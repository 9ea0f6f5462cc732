"""Whole numbers in PyTorch 2 Export's operators: the same values as in torch's own."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill.compression.quantizers.integers import Step
from raydistill.export.integers.aten import AtenOperators
from raydistill.export.integers.pt2e import Pt2eOperators

pytest.importorskip("torchao", reason="torchao is not installed")


@pytest.mark.parametrize("step", [Step(0.5, 2, 0, 255), Step(0.1, 0, -127, 127)])
def test_activations(step: Step) -> None:
    values = torch.linspace(-40, 40, 501)
    torch.testing.assert_close(Pt2eOperators().activation(values, step), AtenOperators().activation(values, step))


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_weights(axis: int | None) -> None:
    numbers = torch.randint(-128, 127, (3, 3), dtype=torch.int8)
    count = 1 if axis is None else 3
    said = (numbers, torch.rand(count) + 0.1, torch.arange(count).to(torch.int8), axis)
    torch.testing.assert_close(Pt2eOperators().weight(*said), AtenOperators().weight(*said))


class Rounded(nn.Module):
    """Layers of which none is right behind what was rounded. Before the first relu no number is below zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        tell = Pt2eOperators().activation
        x = self.first(torch.relu(tell(x, Step(0.1, 0, 0, 255))))
        x = self.second(functional.max_pool2d(torch.relu(tell(x, Step(0.05, 128, 0, 255))), 3, 2, 1))
        return self.last(tell(x, Step(0.1, 0, -127, 127)).flatten(1))


@torch.no_grad()
def test_layers_come_right_behind_whole_numbers_and_values_stay() -> None:
    images = torch.randn(2, 2, 6, 6)
    program = torch.export.export(Rounded().eval(), (images,))
    before = program.module()(images)
    Pt2eOperators().meet_kernels(program)
    assert torch.equal(program.module()(images), before)
    torch.export.save(program, buffer := io.BytesIO())
    buffer.seek(0)
    graph = torch.export.load(buffer).graph
    layers = [node for node in graph.nodes if str(node.target).startswith(("aten.conv2d", "aten.linear"))]
    assert [str(layer.args[0].target) for layer in layers] == ["quantized_decomposed.dequantize_per_tensor.default"] * 3
    assert sum(str(node.target) == "aten.relu.default" for node in graph.nodes) == 1
