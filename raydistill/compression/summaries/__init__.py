"""Tables about a model, as frozen rows, and its picture: pure functions that print nothing."""

from raydistill.compression.summaries.rows import columns, csv_text, shape_text
from raydistill.compression.summaries.sparsity import SparsityRow, mask_table, sparsity_csv, sparsity_table

__all__ = ["SparsityRow", "columns", "csv_text", "mask_table", "shape_text", "sparsity_csv", "sparsity_table"]
