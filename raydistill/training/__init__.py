"""Training runs: `fit` and its checkpoints."""

from raydistill.training.checkpoint import load_model, read_checkpoint, read_history
from raydistill.training.config import Distillation, OwnLoop, RunConfig
from raydistill.training.loop import device_of, evaluate_checkpoint, fit
from raydistill.training.trial import Trial

__all__ = [
    "Distillation",
    "OwnLoop",
    "RunConfig",
    "Trial",
    "device_of",
    "evaluate_checkpoint",
    "fit",
    "load_model",
    "read_checkpoint",
    "read_history",
]
