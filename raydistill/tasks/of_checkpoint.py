"""What a checkpoint's network was trained for, as the file says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.models import MENU, domain
from raydistill.tasks.base import TaskConfig

CLASSIFICATION = TaskConfig().name

_DETECTION = {"masks": False, "flips": True}
_READS = {"tokens": "language_model", "features": "regression", "pairs": "recommender", "images": CLASSIFICATION}


def task_by_arch(arch: str) -> str:
    """The task that a network of the menu was made for; of one's own, which cannot be told, classification."""
    return _READS[domain(arch, {}).reads] if arch in MENU else CLASSIFICATION


def task_of_content(content: Mapping[str, Any], where: str) -> TaskConfig:
    """The task of the menu that a checkpoint's network was trained for, with its arguments as far as the file has them.

    Raises:
        ConfigError: it does not say.
    """
    run = content["run"]
    if "target_scale" in content:
        targets = [one["name"] for one in content.get("columns", {}).get("targets", ())]
        said = {"target": targets[0] if len(targets) == 1 else targets, "loss": run.get("loss", "mse")}
        kept = {key: value for key, value in said.items() if value not in ([], "mse")}
        return TaskConfig("regression", kept)
    if "user_ids" in content:
        return TaskConfig("recommender", {"negatives": run["negatives"]} if "negatives" in run else {})
    if {"masks", "flips"} <= run.keys():
        said = {"masks": run["masks"], "flips": run["flips"]}
        return TaskConfig("detection", {key: said[key] for key, usual in _DETECTION.items() if said[key] != usual})
    if "bptt" in run:
        return TaskConfig("language_model", {"tokens": run["tokens"], "bptt": run["bptt"]})
    if "num_classes" in content or content.get("plain"):
        arch = str(run["arch"])
        name = task_by_arch(arch)
        if name in (CLASSIFICATION, "language_model"):
            args = {"multi_label": True} if content.get("multi_label") else {}
            return TaskConfig(name, args)
    raise ConfigError(Fault("--task", f"{where} does not say what it was trained for", ABSENT, "name it"))
