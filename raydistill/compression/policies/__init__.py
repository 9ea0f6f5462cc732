"""Policies: what acts at the six places of a training loop."""

from raydistill.compression.policies.base import Policy, Step
from raydistill.compression.policies.lr import LRPolicy
from raydistill.compression.policies.pruning import PruningControls, PruningPolicy
from raydistill.compression.policies.quantization import QuantizationPolicy
from raydistill.compression.policies.regularization import RegularizationControls, RegularizationPolicy

__all__ = [
    "LRPolicy",
    "Policy",
    "PruningControls",
    "PruningPolicy",
    "QuantizationPolicy",
    "RegularizationControls",
    "RegularizationPolicy",
    "Step",
]
