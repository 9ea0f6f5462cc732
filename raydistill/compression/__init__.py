"""The compression engine: torch only, usable in any training loop.

scheduler = build(load_schedule("schedule.yaml"), model, optimizer)
"""

from raydistill.compression.build import build, check, planned_of, planned_sparsity
from raydistill.compression.scheduler import CompressionScheduler
from raydistill.compression.sparsity import sparsity, weights, zero_counts

__all__ = [
    "CompressionScheduler",
    "build",
    "check",
    "planned_of",
    "planned_sparsity",
    "sparsity",
    "weights",
    "zero_counts",
]
