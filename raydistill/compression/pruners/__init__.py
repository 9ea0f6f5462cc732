"""The menu of pruners, by the class names that schedule files use."""

from raydistill.compression.pruners.agp import AutomatedGradualPruner
from raydistill.compression.pruners.base import Pruner, RankedPruner
from raydistill.compression.pruners.level import SparsityLevelParameterPruner

MENU: dict[str, type[Pruner]] = {
    "AutomatedGradualPruner": AutomatedGradualPruner,
    "SparsityLevelParameterPruner": SparsityLevelParameterPruner,
}

__all__ = ["MENU", "AutomatedGradualPruner", "Pruner", "RankedPruner", "SparsityLevelParameterPruner"]
