"""What runs in a process of Ray's that evaluates a checkpoint on the test split.

It imports what that takes and no more: each such process does it first, for seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
import torch

from raydistill.errors import RaydistillError
from raydistill.records import Evaluation
from raydistill.storage import Store
from raydistill.sweep.planning.resources import Share
from raydistill.sweep.trial.checkpoint_damage import named
from raydistill.training import evaluate_checkpoint


def evaluate_on_test(
    checkpoint: str, store: Store, shared: Sequence[Any], share: Share, arch: str
) -> Evaluation | RaydistillError:
    """Of a checkpoint that `store` keeps; an error is given back, not raised: Ray would wrap it.

    shared: the task's boxed reference. arch: see `training.checkpoint.load_model`.
    """
    torch.set_num_threads(share.threads)
    try:
        with store.lent(checkpoint) as path:
            try:
                return evaluate_checkpoint(path, ray.get(shared[0]), "test", device=share.device, arch=arch)
            except RaydistillError as error:
                return named(error, path, checkpoint)
    except RaydistillError as error:
        return error
