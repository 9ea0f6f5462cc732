"""Policies: what acts at the seven places of a training loop."""

from raydistill.compression.policies.base import Policy, Step
from raydistill.compression.policies.lr import LRPolicy
from raydistill.compression.policies.post_training import PostTrainingControls, PostTrainingPolicy
from raydistill.compression.policies.pruning import PruningControls, PruningPolicy
from raydistill.compression.policies.quantization import QuantizationPolicy
from raydistill.compression.policies.regularization import RegularizationControls, RegularizationPolicy

__all__ = [
    "LRPolicy",
    "Policy",
    "PostTrainingControls",
    "PostTrainingPolicy",
    "PruningControls",
    "PruningPolicy",
    "QuantizationPolicy",
    "RegularizationControls",
    "RegularizationPolicy",
    "Step",
]
