"""Training runs: `fit` and its checkpoints."""

from raydistill.training.checkpoint import load_model, read_checkpoint, read_history
from raydistill.training.config import Distillation, RunConfig
from raydistill.training.loop import device_of, evaluate_checkpoint, fit

__all__ = [
    "Distillation",
    "RunConfig",
    "device_of",
    "evaluate_checkpoint",
    "fit",
    "load_model",
    "read_checkpoint",
    "read_history",
]
