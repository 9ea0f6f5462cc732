"""A trial that Ray's memory monitor kills must be one failed trial; in Ray (2.60 at least) it ends the whole run.

`OutOfMemoryError` is no `RayActorError` there, so Tune's actor manager takes it for a defect of its own and raises.
"""

from __future__ import annotations

from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError

_as_ray_has_it = RayActorManager._actor_task_failed


def survive_memory_kills() -> None:
    """From now on Tune takes a killed actor for one that died: it is retried, then failed. Safe to call twice."""
    RayActorManager._actor_task_failed = _actor_task_failed


def _actor_task_failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
    if isinstance(exception, OutOfMemoryError | NodeDiedError):
        exception = RayActorError(error_msg=str(exception))
    _as_ray_has_it(self, tracked_actor_task, exception)
