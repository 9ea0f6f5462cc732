"""A trial that Ray's memory monitor kills must be one failed trial; in Ray (2.60 at least) it ends the whole run.

`OutOfMemoryError` is no `RayActorError` there, so Tune's actor manager takes it for a defect of its own and raises. So
does Tune's trial, when it is asked for the first result of a process that was killed before there was one.
What is changed here is private to Ray: where a Ray has it otherwise, it is left as it is.
"""

from __future__ import annotations

import functools
import importlib
import inspect

MADE_FOR = "2.60"
"""The Ray whose insides these are."""

_MODULE = "ray.air.execution._internal.actor_manager"
_METHOD, _PARAMETERS = "_actor_task_failed", ["self", "tracked_actor_task", "exception"]
_TRIAL, _FIRST, _KEPT = "ray.tune.experiment.trial", "_get_default_result_or_future", "_default_result_or_future"
_DONE = "_raydistill_survives_memory_kills"


def survive_memory_kills() -> bool:
    """From now on Tune takes a killed actor for one that died: it is retried, then failed. Safe to call twice.

    False: this Ray is made otherwise, and nothing was changed.
    """
    try:
        manager = importlib.import_module(_MODULE).RayActorManager
        errors = importlib.import_module("ray.exceptions")
        killed, died = (errors.OutOfMemoryError, errors.NodeDiedError), errors.RayActorError
        trial = importlib.import_module(_TRIAL).Trial
        before, first = getattr(manager, _METHOD), getattr(trial, _FIRST)
        parameters = [list(inspect.signature(method).parameters) for method in (before, first)]
        died(error_msg="")
    except (ImportError, AttributeError, TypeError, ValueError):
        return False
    if hasattr(before, _DONE):
        return True
    if parameters != [_PARAMETERS, ["self"]]:
        return False

    @functools.wraps(before)
    def actor_task_failed(self: object, tracked_actor_task: object, exception: Exception) -> None:
        if isinstance(exception, killed):
            exception = died(error_msg=str(exception))
        before(self, tracked_actor_task, exception)

    @functools.wraps(first)
    def first_result(self: object) -> object:
        try:
            return first(self)
        except killed:
            setattr(self, _KEPT, None)
            return None

    setattr(actor_task_failed, _DONE, True)
    setattr(manager, _METHOD, actor_task_failed)
    setattr(trial, _FIRST, first_result)
    return True
