"""Tables about a model, as frozen rows, and its picture: pure functions that print nothing.

sparsities are fractions in [0, 1]; shapes are tuples; a cell that does not apply is None.
"""

from raydistill.compression.summaries.compute import ComputeRow, compute_table, total_macs
from raydistill.compression.summaries.modules import ModuleRow, OptimizerRow, module_table, optimizer_table
from raydistill.compression.summaries.own import own_table
from raydistill.compression.summaries.picture import draw
from raydistill.compression.summaries.rows import columns, csv_text, shape_text
from raydistill.compression.summaries.sparsity import SparsityRow, mask_table, sparsity_csv, sparsity_table
from raydistill.compression.trace import Call, Trace, trace

__all__ = [
    "Call",
    "ComputeRow",
    "ModuleRow",
    "OptimizerRow",
    "SparsityRow",
    "Trace",
    "columns",
    "compute_table",
    "csv_text",
    "draw",
    "mask_table",
    "module_table",
    "optimizer_table",
    "own_table",
    "shape_text",
    "sparsity_csv",
    "sparsity_table",
    "total_macs",
    "trace",
]
