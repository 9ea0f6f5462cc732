"""Whole numbers in the operators that torch.compile's CPU backend makes integer kernels of (PyTorch 2 Export's)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from raydistill.compression.quantizers.integers import Step, of_8_bits

OPERATORS = "torch.ops.quantized_decomposed."
"""What their names begin with."""

_UP = 128
"""From numbers of int8 to those of uint8, the only ones that the kernels read; what they stand for stays."""
_NEGATIVE_TO_ZERO = {torch.ops.aten.relu.default, torch.ops.aten.relu_.default}
_GRID_KEPT = _NEGATIVE_TO_ZERO | {
    torch.ops.aten.max_pool2d.default, torch.ops.aten.dropout.default,
    torch.ops.aten.flatten.using_ints, torch.ops.aten.view.default, torch.ops.aten.reshape.default,
    torch.ops.aten.permute.default, torch.ops.aten.transpose.int,
    torch.ops.aten.select.int, torch.ops.aten.slice.Tensor,
}  # fmt: skip
"""What gives only values that it reads, or zero, which every grid has."""
_IN_KERNELS = {torch.ops.aten.conv1d.default, torch.ops.aten.conv2d.default, torch.ops.aten.linear.default}


class Pt2eOperators:
    """``quantized_decomposed``, which torchao registers."""

    def __init__(self) -> None:
        import torchao.quantization.pt2e.quantize_pt2e  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401

        self._ops: Any = torch.ops.quantized_decomposed

    def activation(self, values: Tensor, step: Step) -> Tensor:
        kind = of_8_bits(step.low, step.high)
        up = _UP if kind == torch.int8 else 0
        grid = (step.scale, step.zero_point + up, step.low + up, step.high + up, torch.uint8 if up else kind)
        found: Tensor = self._ops.dequantize_per_tensor(self._ops.quantize_per_tensor(values, *grid), *grid)
        return found

    def weight(self, numbers: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
        limits = torch.iinfo(numbers.dtype)
        if axis is None:
            axis, rows = 0, numbers.shape[0]
            scale, zero_point = scale.expand(rows), zero_point.expand(rows)
        found: Tensor = self._ops.dequantize_per_channel(
            numbers, scale, zero_point.to(torch.int64), axis, limits.min, limits.max, numbers.dtype
        )
        return found

    def meet_kernels(self, program: torch.export.ExportedProgram) -> None:
        """Let each layer read whole numbers themselves, in place; values stay.

        An integer kernel is made of a layer behind a ``dequantize_per_tensor``. What stands between the two and only
        moves or picks values gives values of the same grid, so they are told as whole numbers once more behind it; a
        relu of numbers that stand for none below zero goes.
        """
        graph = program.graph
        for node in list(graph.nodes):
            if node.target in _NEGATIVE_TO_ZERO and not any(user.op == "output" for user in node.users):
                grid = self._grid(node.args[0])
                if grid is not None and grid[1] == grid[2]:
                    node.replace_all_uses_with(node.args[0])
                    graph.erase_node(node)
        for node in list(graph.nodes):
            if node.target in _IN_KERNELS and node.args[0].target in _GRID_KEPT:
                grid = self._grid(node.args[0])
                if grid is not None:
                    node.replace_input_with(node.args[0], self._told_again(node.args[0], grid))
        program.graph_module.recompile()

    def _grid(self, node: fx.Node) -> tuple[Any, ...] | None:
        """Scale, zero point, lowest, highest and type of the whole numbers that its values are."""
        while node.target in _GRID_KEPT:
            node = node.args[0]  # type: ignore[assignment]
        return tuple(node.args[1:]) if node.target == self._ops.dequantize_per_tensor.default else None

    def _told_again(self, node: fx.Node, grid: tuple[Any, ...]) -> fx.Node:
        graph, value = node.graph, node.meta["val"]
        with graph.inserting_after(node):
            numbers = graph.call_function(self._ops.quantize_per_tensor.default, (node, *grid))
        with graph.inserting_after(numbers):
            told = graph.call_function(self._ops.dequantize_per_tensor.default, (numbers, *grid))
        numbers.meta["val"], told.meta["val"] = value.to(grid[-1]), value
        return told
