"""raydistill: search how hard each layer of a PyTorch model can be pruned, and pick from the Pareto front.

The names below are the public ones; each is imported when it is first asked for, so that ``import raydistill`` costs
nothing and never brings in Ray or MLflow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raydistill.compression import CompressionScheduler, build, planned_sparsity, sparsity
    from raydistill.datasets import ArrayDataset, DatasetConfig
    from raydistill.errors import RaydistillError
    from raydistill.records import EpochMetrics, TrialRecord
    from raydistill.schedule import load_schedule, parse_schedule
    from raydistill.sweep.from_python import run_sweep
    from raydistill.training import RunConfig, Trial, evaluate_checkpoint, fit, load_model

__version__ = "0.1.0"

_HOMES = {
    "ArrayDataset": "datasets",
    "CompressionScheduler": "compression",
    "DatasetConfig": "datasets",
    "EpochMetrics": "records",
    "RaydistillError": "errors",
    "RunConfig": "training",
    "Trial": "training",
    "TrialRecord": "records",
    "build": "compression",
    "evaluate_checkpoint": "training",
    "fit": "training",
    "load_model": "training",
    "load_schedule": "schedule",
    "parse_schedule": "schedule",
    "planned_sparsity": "compression",
    "run_sweep": "sweep.from_python",
    "sparsity": "compression",
}

__all__ = [
    "ArrayDataset",
    "CompressionScheduler",
    "DatasetConfig",
    "EpochMetrics",
    "RaydistillError",
    "RunConfig",
    "Trial",
    "TrialRecord",
    "build",
    "evaluate_checkpoint",
    "fit",
    "load_model",
    "load_schedule",
    "parse_schedule",
    "planned_sparsity",
    "run_sweep",
    "sparsity",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'raydistill' has no attribute '{name}'")
    return getattr(importlib.import_module(f"raydistill.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
