"""Sweep files for tests: a small one that is right, and ways to break it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SWEEP: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "model": {"arch": "simplenet_cifar"},
    "dataset": {"name": "digits"},
    "training": {"epochs": 4, "batch_size": 128, "lr": 0.02},
    "baseline": {"epochs": 3, "lr": 0.05},
    "schedule": {
        "version": 1,
        "pruners": {
            "agp": {
                "class": "AutomatedGradualPruner",
                "initial_sparsity": 0.05,
                "final_sparsity": 0.5,
                "weights": ["conv1.weight", "fc1.weight", "fc2.weight"],
            }
        },
        "policies": [
            {"pruner": {"instance_name": "agp"}, "starting_epoch": 0, "ending_epoch": 3, "frequency": 1},
        ],
    },
    "search": {
        "training.lr": {"loguniform": [0.01, 0.05]},
        "per_layer": {"weights": ["fc1.weight", "fc2.weight"], "final_sparsity": {"uniform": [0.3, 0.95]}},
    },
    "trial_scheduler": {"name": "none"},
    "num_samples": 3,
    "seed": 0,
}


def changed(mapping: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a dotted path replaced; `...` removes it."""
    head, _, rest = path.partition("/")
    result = dict(mapping)
    if rest:
        result[head] = changed(result.get(head) or {}, rest, value)
    elif value is ...:
        del result[head]
    else:
        result[head] = value
    return result


@pytest.fixture
def write_sweep(tmp_path: Path) -> Callable[..., Path]:
    """Writes the small sweep file with changes: ``write_sweep(("training/lr", 0.1), ...)``."""

    def write(*changes: tuple[str, Any], name: str = "space.yaml") -> Path:
        mapping = SWEEP
        for path, value in changes:
            mapping = changed(mapping, path, value)
        file = tmp_path / name
        file.write_text(yaml.safe_dump(mapping, sort_keys=False))
        return file

    return write
