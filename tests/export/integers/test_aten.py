"""Whole numbers in torch's own operators."""

from __future__ import annotations

import torch

from raydistill.compression.quantizers.integers import Step
from raydistill.export.integers.aten import AtenOperators


def test_an_activation_is_rounded_and_clipped() -> None:
    found = AtenOperators().activation(torch.tensor([-9.0, -0.26, 0.25, 0.74, 9.0]), Step(0.5, 2, 0, 5))
    assert found.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.5]


def test_numbers_of_one_grid_and_of_one_a_channel() -> None:
    numbers = torch.tensor([[1, 2], [3, 4]], dtype=torch.int8)
    one = AtenOperators().weight(numbers, torch.tensor([0.5]), torch.tensor([1], dtype=torch.int8), None)
    assert one.tolist() == [[0.0, 0.5], [1.0, 1.5]]
    zeros = torch.tensor([0, 1], dtype=torch.int8)
    assert AtenOperators().weight(numbers, torch.tensor([1.0, 2.0]), zeros, 1).tolist() == [[1.0, 2.0], [3.0, 6.0]]
