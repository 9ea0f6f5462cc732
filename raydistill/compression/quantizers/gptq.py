"""Each weight is rounded in turn, and those of its row that are still floats make good what it added to the output.

Frantar et al. 2022 (GPTQ, arXiv 2210.17323). With H the sum of x x^T over what a layer reads, the change of a row w
that costs the least when its weight j goes to q is -(w_j - q) / (H^-1)_jj times row j of H^-1 over the weights that are
left (equation 2). All rows go in the same order, so one Cholesky factor of H^-1 holds what every step needs (section
3.3, step 3). Layers are taken in the order in which they run, on what they read once those before are rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raydistill.compression.calibration import DAMPING, PRODUCTS, Sums, inverse_factor
from raydistill.compression.layer_kinds import weighted
from raydistill.compression.quantizers.adaptive_rounding import Learned, rounded_layers
from raydistill.compression.quantizers.grid import Grid
from raydistill.compression.quantizers.network import Quantization
from raydistill.compression.quantizers.statistics import Batches
from raydistill.compression.quantizers.watch import Place, computed, watching
from raydistill.compression.quantizers.weights import LearnedRounding

_BLOCK = 128
"""Columns after which the rest of the matrix is brought up to date (section 3.3, step 2)."""


def compensated(weight: Tensor, hessian: Tensor, grid: Grid, damping: float = DAMPING) -> Tensor:
    """The whole numbers of a matrix, as float64. A weight of zero gets zero's number.

    Shapes: weight (rows, columns); hessian (columns, columns); the grid's scale and zero point broadcast with the
    weight. Columns that are never read are rounded to the nearest.
    """
    left = weight.detach().double().clone()
    pruned = weight == 0
    scale, zero = (held.double().expand(left.shape) for held in (grid.scale, grid.zero_point))
    factor = inverse_factor(hessian.double(), damping)
    numbers = torch.empty_like(left)
    for start in range(0, left.shape[1], _BLOCK):
        end = min(start + _BLOCK, left.shape[1])
        errors = torch.zeros_like(left[:, start:end])
        for j in range(start, end):
            found = (torch.round(left[:, j] / scale[:, j]) + zero[:, j]).clamp(grid.low, grid.high)
            numbers[:, j] = torch.where(pruned[:, j], zero[:, j], found)
            off = (left[:, j] - (numbers[:, j] - zero[:, j]) * scale[:, j]) / factor[j, j]
            left[:, j + 1 : end] -= off.unsqueeze(1) * factor[j, j + 1 : end]
            errors[:, j - start] = off
        left[:, end:] -= errors @ factor[start:end, end:]
    return numbers


def output_error(weight: Tensor, rounded: Tensor, hessian: Tensor, samples: int) -> float:
    """The mean square error of the layer's output, over these rows and the samples that H sums up."""
    off = (rounded - weight).double()
    return float(((off @ hessian) * off).sum()) / max(samples * weight.shape[0], 1)


@torch.no_grad()
def compensate(model: nn.Module, held: Quantization, batches: Batches, damping: float = DAMPING) -> Iterator[Learned]:
    """Layer by layer, in the order in which they run, of a network that is quantized; yields what each gained.

    batches: calibration data, seen once a layer. Its weights' quantizers are `LearnedRounding` from then on:
    `plan.plan_of` has them. Weights that several layers share, those without a layer of their own, and layers whose
    kind knows no `patches` (transposed and three-dimensional convolutions) stay as they are.
    """
    for name, place in rounded_layers(model, held, batches):
        module = model.get_submodule(place[0])
        sums = _hessians(model, place, module, batches)
        if sums is None:
            continue
        hessians, samples = sums
        weight, own = model.get_parameter(name).detach(), held.weight(name)
        grid: Grid = own.grid(weight)  # type: ignore[assignment]  # those of none are no layer's weight
        rows = weight.flatten(1)
        scale, zero = (value.double().expand(weight.shape).flatten(1) for value in (grid.scale, grid.zero_point))
        parts = [
            slice(i * len(rows) // len(hessians), (i + 1) * len(rows) // len(hessians)) for i in range(len(hessians))
        ]
        numbers, before, after = torch.empty_like(rows, dtype=torch.float64), 0.0, 0.0
        plain = grid.numbers(weight.float()).flatten(1).double()
        for part, hessian in zip(parts, hessians, strict=True):
            own_grid = Grid(scale[part], zero[part], grid.low, grid.high)
            chosen = compensated(rows[part], hessian, own_grid, damping)
            costs = [
                output_error(rows[part].double(), own_grid.values(each), hessian, samples)
                for each in (plain[part], chosen)
            ]
            numbers[part] = chosen if costs[1] < costs[0] else plain[part]
            before, after = before + costs[0] / len(parts), after + min(costs) / len(parts)
        kept: Grid = own.kept_grid(weight)  # type: ignore[assignment]
        made = LearnedRounding(own.bits, grid.low, grid.high, list(kept.scale.shape), list(weight.shape))
        made = made.to(weight.device)
        above = numbers.view(weight.shape) - grid.zero_point - torch.floor(weight / grid.scale)
        made.take(kept, above)
        held.replace_weight(name, made)
        yield Learned(name, before, after, int((numbers != plain).sum()))


def _hessians(
    model: nn.Module, place: Place, module: nn.Module, batches: Batches
) -> tuple[Sequence[Tensor], int] | None:
    """Of each group of rows of a layer, H over the calibration data, and of how many samples; None: of such a layer
    none can be had."""
    kind = weighted(module)
    assert kind is not None
    sums = Sums(PRODUCTS)

    def see(at: Place, arguments: Any, result: Any) -> None:
        if at == place:
            read = kind.patches(module, computed(arguments)[0])
            if read is not None:
                sums.add(read)

    with watching(model, see):
        for inputs in batches():
            model(*inputs)
            if sums.total is None:
                return None
    return None if sums.total is None else (list(sums.total), sums.samples)
