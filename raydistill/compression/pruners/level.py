"""Pruning to a fixed sparsity level."""

from __future__ import annotations

from raydistill.compression.pruners.base import RankedPruner, checked_level
from raydistill.compression.rates import constant
from raydistill.errors import ConfigError, Fault


class SparsityLevelParameterPruner(RankedPruner):
    """Prunes the smallest weights of each parameter up to the level that `levels` gives for it.

    levels: parameter name to sparsity, a fraction in [0, 1).
    """

    def __init__(self, name: str, levels: dict[str, float]) -> None:
        if not isinstance(levels, dict) or not levels:
            raise ConfigError(Fault("levels", "must map weight names to levels", levels, "such as {fc1.weight: 0.8}"))
        checked = {str(weight): checked_level(f"levels.{weight}", level) for weight, level in levels.items()}
        super().__init__(name, {weight: constant(level) for weight, level in checked.items()})
        self.levels = checked
