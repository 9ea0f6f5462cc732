"""The task of regression: numbers told from the columns of a table, or from tensors of one's own."""

from raydistill.tasks.regression.task import Regression

__all__ = ["Regression"]
