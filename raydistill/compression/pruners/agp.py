"""Automated gradual pruning (Zhu and Gupta 2017, arXiv 1710.01878)."""

from __future__ import annotations

from raydistill.compression.pruners.arguments import checked_rise, checked_weights
from raydistill.compression.pruners.base import ComposedPruner
from raydistill.compression.rates import cubic


class AutomatedGradualPruner(ComposedPruner):
    """Prunes the smallest weights of each parameter, from initial to final sparsity along a cubic curve.

    initial_sparsity, final_sparsity: fractions in [0, 1); the first is reached at the policy's first epoch, the
    second exactly at its last scheduled one. weights: parameter names.

    Raises:
        ConfigError: a level is out of range, or the final one lies below the initial one.
    """

    def __init__(self, name: str, initial_sparsity: float, final_sparsity: float, weights: list[str]) -> None:
        initial, final = checked_rise(initial_sparsity, final_sparsity)
        super().__init__(name, {weight: cubic(initial, final) for weight in checked_weights("weights", weights)})
        self.initial_sparsity, self.final_sparsity = initial, final
