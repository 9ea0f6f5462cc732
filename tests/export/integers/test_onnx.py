"""Whole numbers in ONNX: onnxruntime computes what the operators say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from raydistill.compression.quantizers.activations import FixedGrid
from raydistill.compression.quantizers.grid import Grid
from raydistill.export.formats.onnx import onnx_model
from raydistill.export.integers.onnx import of_numbers

pytestmark = pytest.mark.slow  # exporters take seconds


class Rounded(nn.Module):
    def __init__(self, low: int, high: int, zero_point: float) -> None:
        super().__init__()
        self.rounds = FixedGrid.of(8, Grid(torch.tensor(0.1), torch.tensor(zero_point), low, high))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.rounds(values)


@pytest.mark.parametrize(("low", "high", "zero"), [(0, 255, 7.0), (-128, 127, 0.0), (-127, 127, 3.0), (0, 15, 4.0)])
def test_an_activation_is_rounded_and_clipped_to_its_numbers(low: int, high: int, zero: float) -> None:
    import onnxruntime

    model = Rounded(low, high, zero)
    values = torch.linspace(-30, 30, 1202).reshape(2, 601)
    written = onnx_model(model, (values,), (0,))
    kinds = [node.op_type for node in written.graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 1
    session = onnxruntime.InferenceSession(written.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: values.numpy()})
    expected = (np.clip(np.rint(values.numpy() / np.float32(0.1)) + zero, low, high) - zero) * 0.1
    np.testing.assert_allclose(found, expected, atol=0.1001)  # on an edge between two
    assert np.mean(np.abs(found - expected) > 1e-4) < 0.01
    assert model.rounds.spoken is None  # it just computes again


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_what_whole_numbers_stand_for(axis: int) -> None:
    numbers = torch.tensor([[1, -2], [3, 4]], dtype=torch.int8)
    scale, zero = (torch.tensor([0.5, 2.0]), torch.tensor([0, 1], dtype=torch.int8))
    if axis < 0:
        scale, zero = scale[0], zero[0]
    expected = {
        -1: [[0.5, -1.0], [1.5, 2.0]],
        0: [[0.5, -1.0], [4.0, 6.0]],
        1: [[0.5, -6.0], [1.5, 6.0]],
    }
    assert of_numbers(numbers, scale, zero, axis).tolist() == expected[axis]
