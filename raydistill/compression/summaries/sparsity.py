"""How sparse each weight is, at every granularity: the columns of Distiller's ``weights_sparsity_summary``.

Its words for matrices differ from those of schedule files: it counts on the transposed matrix that a GEMM multiplies
by, so *cols* are the outputs (dim 0 of torch's weight, group type Rows of a schedule) and *rows* the inputs (dim 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raydistill.compression.granularity import CHANNELS, COLS, FILTERS, KERNELS, ROWS, Granularity
from raydistill.compression.sparsity import weights
from raydistill.compression.summaries.rows import csv_text

TOTAL = "total"


@dataclass(frozen=True)
class SparsityRow:
    """One weight, or the total of all.

    dense: number of elements; nonzero: how many are not zero; sparsity: the fraction that is (*fine*). The others are
    fractions of structures that are zero throughout: outputs (cols) and inputs (rows) of a matrix; input channels,
    kernels (2D; of a matrix: outputs) and filters (3D) of a convolution.
    """

    weight: str
    shape: tuple[int, ...]
    dense: int
    nonzero: int
    sparsity: float
    cols: float | None = None
    rows: float | None = None
    channels: float | None = None
    sparsity_2d: float | None = None
    sparsity_3d: float | None = None
    std: float | None = None
    mean: float | None = None
    abs_mean: float | None = None


_STRUCTURES: dict[str, tuple[Granularity, bool]] = {
    "cols": (ROWS, True),
    "rows": (COLS, True),
    "channels": (CHANNELS, False),
    "sparsity_2d": (KERNELS, False),
    "sparsity_3d": (FILTERS, False),
}
"""Column to the structure it counts and whether that is one of matrices."""


def sparsity_table(model: nn.Module) -> tuple[SparsityRow, ...]:
    """One row a weight (a parameter of two or more dimensions; a shared one counts once) and a last one in total."""
    return _table(dict(weights(model)))


def mask_table(masks: Mapping[str, Tensor]) -> tuple[SparsityRow, ...]:
    """The same of masks by weight name (1 keeps, 0 prunes): what is pruned, whatever the weights hold by now."""
    return _table({name: mask.to(torch.float32) for name, mask in masks.items()})


def sparsity_csv(model: nn.Module) -> str:
    """`sparsity_table` as CSV text."""
    return csv_text(SparsityRow, sparsity_table(model))


def _table(tensors: Mapping[str, Tensor]) -> tuple[SparsityRow, ...]:
    # one transfer from the device for all figures of all weights
    measured = [_measure(tensor.detach()) for tensor in tensors.values()]
    figures = torch.stack([values for _, values in measured]).tolist() if measured else []
    rows = []
    for (name, tensor), (keys, _), values in zip(tensors.items(), measured, figures, strict=True):
        found = dict(zip(keys, values, strict=False))
        size, nonzero = tensor.numel(), round(found.pop("nonzero"))
        rows.append(SparsityRow(name, tuple(tensor.shape), size, nonzero, (size - nonzero) / max(1, size), **found))
    dense, nonzero = sum(row.dense for row in rows), sum(row.nonzero for row in rows)
    return (*rows, SparsityRow(TOTAL, (), dense, nonzero, (dense - nonzero) / max(1, dense)))


def _measure(weight: Tensor) -> tuple[list[str], Tensor]:
    """Names of the columns that apply and their figures, float64; padded to one length."""
    values = weight.to(torch.float32)
    figures = {"nonzero": torch.count_nonzero(weight)}
    matrix = weight.dim() == 2
    for column, (structure, of_matrix) in _STRUCTURES.items():
        if of_matrix == matrix and weight.numel() > 0 and not structure.fault_of(weight):
            figures[column] = (structure.groups(weight) == 0).all(dim=1).double().mean()
    if "cols" in figures:
        figures["sparsity_2d"] = figures["cols"]
    if weight.numel() > 0:
        figures["std"] = values.std() if weight.numel() > 1 else values.new_zeros(())
        figures["mean"], figures["abs_mean"] = values.mean(), values.abs().mean()
    stacked = torch.stack([figure.double() for figure in figures.values()])
    return list(figures), torch.nn.functional.pad(stacked, (0, len(_STRUCTURES) + 4 - len(stacked)))
