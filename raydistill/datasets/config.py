"""Where a dataset's settings have always been found."""

from raydistill.parts.data import DatasetConfig

__all__ = ["DatasetConfig"]
