"""A trace as boxes, on a network drawn by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raydistill.compression.summaries.graph import boxes
from raydistill.compression.trace import trace


class Residual(nn.Module):
    """input -> conv, norm, relu -> conv -> add (and relu) -> relu, mean, flatten -> fc"""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.conv1(x)))
        y = torch.relu(self.conv2(y) + y)
        return self.fc(y.mean((2, 3)).flatten(1) * torch.ones(4))


def test_norms_and_activations_join_and_what_only_changes_shapes_is_left_out() -> None:
    model = Residual()
    found = boxes(trace(model, torch.zeros(2, 3, 8, 8)), model)
    assert [(box.kind, box.title, box.inputs, box.joined) for box in found] == [
        ("input", "input", (), ()),
        ("conv", "conv1", (0,), ("batch_norm", "relu")),
        ("conv", "conv2", (1,), ()),
        ("merge", "add", (2, 1), ("relu",)),
        ("pool", "mean", (3,), ()),
        ("merge", "mul", (4,), ()),
        ("linear", "fc", (5,), ()),
    ]
    assert [box.shape for box in found] == ["3x8x8", "4x8x8", "4x8x8", "4x8x8", "4", "4", "2"]
    assert found[1].detail.startswith("Conv2d ")


def test_an_activation_of_the_input_or_of_what_others_read_too_stands_alone() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = torch.relu(x) * 2
            return torch.relu(y) + y

    model = Net()
    found = boxes(trace(model, torch.zeros(1, 3)), model)
    assert [(box.title, box.inputs) for box in found] == [
        ("input", ()), ("relu", (0,)), ("mul", (1,)), ("relu", (2,)), ("add", (3, 2)),
    ]  # fmt: skip
