"""Pruning to a fixed sparsity level."""

from __future__ import annotations

from collections.abc import Mapping

from raydistill.compression.pruners.arguments import checked_level, checked_mapping
from raydistill.compression.pruners.base import ComposedPruner
from raydistill.compression.rates import constant


class SparsityLevelParameterPruner(ComposedPruner):
    """Prunes the smallest weights of each parameter up to the level that `levels` gives for it.

    levels: parameter name to sparsity, a fraction in [0, 1).
    """

    def __init__(self, name: str, levels: dict[str, float]) -> None:
        given = checked_mapping("levels", levels, "{fc1.weight: 0.8}")
        self.levels = {weight: checked_level(f"levels.{weight}", level) for weight, level in given.items()}
        super().__init__(name, {weight: constant(level) for weight, level in self.levels.items()})

    def with_levels(self, levels: Mapping[str, float]) -> SparsityLevelParameterPruner:
        return SparsityLevelParameterPruner(self.name, dict(levels))
