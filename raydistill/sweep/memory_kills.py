"""A trial that Ray's memory monitor kills must be one failed trial; in Ray (2.60 at least) it ends the whole run.

`OutOfMemoryError` is no `RayActorError` there, so Tune's actor manager takes it for a defect of its own and raises.
What is changed here is private to Ray: where a Ray has it otherwise, it is left as it is.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import Any

MADE_FOR = "2.60"
"""The Ray whose insides these are."""

_MODULE = "ray.air.execution._internal.actor_manager"
_METHOD, _PARAMETERS = "_actor_task_failed", ["self", "tracked_actor_task", "exception"]
_DONE = "_raydistill_survives_memory_kills"


def survive_memory_kills() -> bool:
    """From now on Tune takes a killed actor for one that died: it is retried, then failed. Safe to call twice.

    False: this Ray is made otherwise, and nothing was changed.
    """
    try:
        manager = importlib.import_module(_MODULE).RayActorManager
        errors = importlib.import_module("ray.exceptions")
        killed, died = (errors.OutOfMemoryError, errors.NodeDiedError), errors.RayActorError
        before = getattr(manager, _METHOD)
        parameters = list(inspect.signature(before).parameters)
        died(error_msg="")
    except (ImportError, AttributeError, TypeError, ValueError):
        return False
    if hasattr(before, _DONE):
        return True
    if parameters != _PARAMETERS:
        return False

    @functools.wraps(before)
    def actor_task_failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, killed):
            exception = died(error_msg=str(exception))
        before(self, tracked_actor_task, exception)

    setattr(actor_task_failed, _DONE, True)
    setattr(manager, _METHOD, actor_task_failed)
    return True
