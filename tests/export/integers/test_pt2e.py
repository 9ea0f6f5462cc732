"""Whole numbers in PyTorch 2 Export's operators: the same values as in torch's own."""

from __future__ import annotations

import pytest
import torch

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
