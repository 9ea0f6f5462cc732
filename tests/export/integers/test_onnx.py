"""Whole numbers in ONNX: onnxruntime computes what the operators say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from raydistill.compression.quantizers.activations import FixedGrid
from raydistill.compression.quantizers.grid import Grid
from raydistill.export.formats.onnx import onnx_model
from raydistill.export.integers.onnx import drop_idle_relus, of_numbers

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


@pytest.mark.parametrize(
    ("zero_point", "is_output", "left"),
    [(np.uint8(0), False, 0), (np.uint8(3), False, 1), (np.int8(0), False, 1), (np.uint8(0), True, 1)],
)
def test_a_relu_of_unsigned_numbers_is_left_out(zero_point: np.generic, is_output: bool, left: int) -> None:
    from onnx import TensorProto, checker, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    numbers = {"scale": np.float32(0.5), "zero": zero_point}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Relu", ["d"], ["r"]),
        *([] if is_output else [helper.make_node("Neg", ["r"], ["n"])]),
    ]
    shaped = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "r", "n")}
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "g", [shaped["x"]], [shaped["r" if is_output else "n"]], held)
    model = helper.make_model(graph)
    fed = {"x": np.array([-3.0, -0.6, 0.4, 9.0], dtype=np.float32)}
    before = ReferenceEvaluator(model).run(None, fed)[0]
    drop_idle_relus(model)
    checker.check_model(model)
    assert [node.op_type for node in model.graph.node].count("Relu") == left
    assert np.array_equal(ReferenceEvaluator(model).run(None, fed)[0], before)
