"""Policies: what acts at the six places of a training loop."""

from raydistill.compression.policies.base import Policy, Step
from raydistill.compression.policies.lr import LRPolicy
from raydistill.compression.policies.pruning import PruningPolicy

__all__ = ["LRPolicy", "Policy", "PruningPolicy", "Step"]
