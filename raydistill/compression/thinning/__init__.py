"""Thinning: what pruning zeroed is removed, from any model that Torch-Pruning's dependency graph can trace."""

from raydistill.compression.thinning.removers import ChannelRemover, FilterRemover, StructureRemover
from raydistill.compression.thinning.report import Kept, ThinningReport
from raydistill.compression.thinning.reshape import reshape_like
from raydistill.compression.thinning.thin import thin, untraceable

EXTENSIONS = {"ChannelRemover": ChannelRemover, "FilterRemover": FilterRemover, "StructureRemover": StructureRemover}
"""The classes that schedule files name in ``extensions``."""

__all__ = [
    "EXTENSIONS",
    "ChannelRemover",
    "FilterRemover",
    "Kept",
    "StructureRemover",
    "ThinningReport",
    "reshape_like",
    "thin",
    "untraceable",
]
