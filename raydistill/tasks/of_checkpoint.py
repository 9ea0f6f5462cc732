"""What a checkpoint's network was trained for, as the file says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.models import MENU, domain
from raydistill.parts import DatasetConfig, said
from raydistill.tasks import MENU as TASKS
from raydistill.tasks.base import TaskConfig

CLASSIFICATION = TaskConfig().name

_DETECTION = {"masks": False, "flips": True}
_READS = {"tokens": "language_model", "features": "regression", "pairs": "recommender", "images": CLASSIFICATION}


def asked_for(task: TaskConfig, data: DatasetConfig) -> dict[str, object]:
    """Of a checkpoint the key ``task``: its name, its arguments and its dataset as the user named them; of values that
    are none of a file's the name alone."""
    whole = {"name": task.name, "args": dict(task.args), "dataset": said(data)}
    try:
        found: dict[str, object] = json.loads(json.dumps(whole))
    except (TypeError, ValueError):
        return {"name": task.name}
    return found


def named_in(content: Mapping[str, object]) -> tuple[TaskConfig, dict[str, Any]] | None:
    """The task that the key ``task`` of a checkpoint names, which may be somebody's own, and its dataset section."""
    asked = content.get("task")
    if not isinstance(asked, Mapping) or not isinstance(asked.get("name"), str):
        return None
    args, data = (asked.get(key) for key in ("args", "dataset"))
    config = TaskConfig(asked["name"], dict(args) if isinstance(args, Mapping) else {})
    return config, dict(data) if isinstance(data, Mapping) else {}


def task_by_arch(arch: str) -> str:
    """The task that a network of the menu was made for; of one's own, which cannot be told, classification."""
    return _READS[domain(arch, {}).reads] if arch in MENU else CLASSIFICATION


def task_of_content(content: Mapping[str, Any], where: str) -> TaskConfig:
    """The task of the menu that a checkpoint's network was trained for, with its arguments as far as the file has them.

    Raises:
        ConfigError: it does not say, or names somebody's own.
    """
    asked = named_in(content)
    if asked is not None:
        if asked[0].name in TASKS:
            return asked[0]
        rule = f"{where} is of a task of your own, which is called only where you name it yourself"
        raise ConfigError(Fault("--task", rule, asked[0].name, f"--task {asked[0].name}"))
    run = content["run"]
    if "target_scale" in content:
        targets = [one["name"] for one in content.get("columns", {}).get("targets", ())]
        told = {"target": targets[0] if len(targets) == 1 else targets, "loss": run.get("loss", "mse")}
        kept = {key: value for key, value in told.items() if value not in ([], "mse")}
        return TaskConfig("regression", kept)
    if "user_ids" in content:
        return TaskConfig("recommender", {"negatives": run["negatives"]} if "negatives" in run else {})
    if {"masks", "flips"} <= run.keys():
        told = {"masks": run["masks"], "flips": run["flips"]}
        return TaskConfig("detection", {key: told[key] for key, usual in _DETECTION.items() if told[key] != usual})
    if "bptt" in run:
        return TaskConfig("language_model", {"tokens": run["tokens"], "bptt": run["bptt"]})
    if "num_classes" in content or content.get("plain"):
        arch = str(run["arch"])
        name = task_by_arch(arch)
        if name in (CLASSIFICATION, "language_model"):
            args = {"multi_label": True} if content.get("multi_label") else {}
            return TaskConfig(name, args)
    raise ConfigError(Fault("--task", f"{where} does not say what it was trained for", ABSENT, "name it"))
