"""The menu of regularizers, by the class names that schedule files use."""

from raydistill.compression.regularizers.base import Regularizer
from raydistill.compression.regularizers.coupled import CoupledGroupLassoRegularizer, GrowingRegularizer
from raydistill.compression.regularizers.group import GroupLassoRegularizer, GroupVarianceRegularizer
from raydistill.compression.regularizers.l1 import L1Regularizer

MENU: dict[str, type[Regularizer]] = {
    regularizer.__name__: regularizer
    for regularizer in (
        L1Regularizer,
        GroupLassoRegularizer,
        GroupVarianceRegularizer,
        CoupledGroupLassoRegularizer,
        GrowingRegularizer,
    )
}

__all__ = [
    "MENU",
    "CoupledGroupLassoRegularizer",
    "GroupLassoRegularizer",
    "GroupVarianceRegularizer",
    "GrowingRegularizer",
    "L1Regularizer",
    "Regularizer",
]
