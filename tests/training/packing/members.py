"""Members of a pack, made by hand: runs of a small network on points of a line."""

from __future__ import annotations

from typing import Any

from raydistill.tasks import Feed, Loading, Task, TaskConfig
from raydistill.training import RunConfig
from raydistill.training.packing.member import Member
from tests.tasks.own import Line

TASK = Line()
_FEEDS: dict[tuple[str, int, int], Feed] = {}


def config(**changed: Any) -> RunConfig:
    """Three epochs of 85 rows, 16 at a time."""
    said = {
        "arch": "tests.tasks.own:net", "task": TaskConfig("tests.tasks.own:Line"), "epochs": 3, "batch_size": 16,
        "lr": 0.02, "precision": "fp32", "device": "cpu", "threads": 1, "deterministic": True, "tensorboard": False,
    }  # fmt: skip
    return RunConfig(**{**said, **changed})


def member(key: int = 0, **changed: Any) -> Member:
    return Member(key, config(**changed), TASK, lambda task, config: task, shared_feed)


def shared_feed(task: Task, split: str, loading: Loading) -> Feed:
    key = (split, loading.batch_size, loading.seed)
    if key not in _FEEDS:
        _FEEDS[key] = task.feed(split, loading)
    return _FEEDS[key]
