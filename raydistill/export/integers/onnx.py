"""Whole numbers in ONNX: QuantizeLinear and DequantizeLinear, which runtimes fuse into kernels of integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from raydistill.compression.quantizers.integers import Step, of_4_bits
from raydistill.compression.storage import pack_bits

if TYPE_CHECKING:
    from onnx import ModelProto  # type: ignore[import-not-found,import-untyped,unused-ignore]

OPSET_OF_4_BITS = 21
"""The first operator set of ONNX that knows numbers of 4 bits."""


@torch.library.custom_op("raydistill::on_grid", mutates_args=())
def on_grid(values: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """Values rounded to a grid. Shape: theirs."""
    return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, low, high)


@on_grid.register_fake
def _(values: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    return torch.empty_like(values)


@torch.library.custom_op("raydistill::of_numbers", mutates_args=())
def of_numbers(numbers: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    """What whole numbers stand for; axis -1: one scale for all."""
    shape = [1] * numbers.dim()
    if axis >= 0:
        shape[axis] = -1
    return (numbers.float() - zero_point.float().view(shape)) * scale.view(shape)


@of_numbers.register_fake
def _(numbers: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> Tensor:
    return torch.empty_like(numbers, dtype=torch.float32)


class OnnxOperators:
    """The two operators above, which `translations` tells the exporter."""

    def activation(self, values: Tensor, step: Step) -> Tensor:
        found: Tensor = on_grid(values, step.scale, step.zero_point, step.low, step.high)
        return found

    def weight(self, numbers: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
        if axis is None:
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        found: Tensor = of_numbers(numbers, scale, zero_point, -1 if axis is None else axis)
        return found


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For `torch.onnx.export`: what stands in the file for each operator."""
    from onnxscript import opset18

    op: Any = opset18

    def activation(values: Any, scale: float, zero_point: int, low: int, high: int) -> Any:
        kind = np.uint8 if low >= 0 else np.int8
        limits = np.iinfo(kind)
        if (low, high) != (limits.min, limits.max):  # fewer than 8 bits, or one number less
            ends = [np.float32((end - zero_point) * scale) for end in (low, high)]
            values = op.Clip(values, *(op.Constant(value=_tensor(end)) for end in ends))
        step = op.Constant(value=_tensor(np.float32(scale)))
        zero = op.Constant(value=_tensor(np.array(zero_point, dtype=kind)))
        return op.DequantizeLinear(op.QuantizeLinear(values, step, zero), step, zero)

    def weight(numbers: Any, scale: Any, zero_point: Any, axis: int) -> Any:
        return op.DequantizeLinear(numbers, scale, zero_point, axis=axis if axis >= 0 else 1)

    return {torch.ops.raydistill.on_grid.default: activation, torch.ops.raydistill.of_numbers.default: weight}


def _tensor(value: Any) -> Any:
    from onnx import numpy_helper  # type: ignore[import-not-found,import-untyped,unused-ignore]

    return numpy_helper.from_array(np.asarray(value))


def in_4_bits(written: ModelProto) -> None:
    """Weights whose numbers all fit into 4 bits are stored so, two a byte, in place.

    A Cast gives them to DequantizeLinear in 8 bits, as kernels of integers want them: runtimes carry it out once, when
    they load the file. Read by DequantizeLinear itself they would keep onnxruntime from fusing those kernels.
    """
    from onnx import TensorProto, helper, numpy_helper

    stored = {tensor.name: tensor for tensor in written.graph.initializer}
    read = {node.input[0] for node in written.graph.node if node.op_type == "DequantizeLinear"}
    for name in sorted(read & stored.keys(), reverse=True):  # each goes to the front
        numbers = numpy_helper.to_array(stored[name])
        if numbers.dtype not in (np.int8, np.uint8) or not numbers.size:
            continue
        if not of_4_bits(int(numbers.min()), int(numbers.max())):
            continue
        few = TensorProto.INT4 if numbers.min() < 0 else TensorProto.UINT4
        kept = f"{name}.of_4_bits"
        written.graph.node.insert(0, helper.make_node("Cast", [kept], [name], to=stored[name].data_type))
        packed = pack_bits(numbers.view(np.uint8) & 15, 4).tobytes()
        stored[name].CopyFrom(helper.make_tensor(kept, few, numbers.shape, packed, raw=True))


def drop_idle_relus(written: ModelProto) -> None:
    """Leave out, in place, what sets negative values to zero where the numbers before it stand for none.

    Between two layers it would keep onnxruntime from computing either with whole numbers.
    """
    from onnx import numpy_helper

    graph = written.graph
    numbers = {tensor.name: tensor for tensor in graph.initializer}
    grids = (node for node in graph.node if node.op_type == "DequantizeLinear" and len(node.input) > 2)
    zeros = {node.output[0]: node.input[2] for node in grids}
    given = {output.name for output in graph.output}
    instead: dict[str, str] = {}
    for node in list(graph.node):
        zero = numbers.get(zeros.get(node.input[0], "")) if node.op_type == "Relu" else None
        if zero is None or node.output[0] in given:
            continue
        lowest = numpy_helper.to_array(zero)
        if lowest.dtype.kind == "u" and not lowest.any():
            instead[node.output[0]] = node.input[0]
            graph.node.remove(node)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
