"""Is this error memory that ran out? torch says so in several ways, depending on who asked for the memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from raydistill.errors import Fault, TrainingError

WAY_OUT = "lower batch_size, or raise resources_per_trial so that fewer trials share the memory"
_WORDS = (
    "out of memory",  # CUDA's own and its libraries'
    "can't allocate memory",  # torch's allocator of the CPU
    "not enough memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


def ran_out(error: BaseException) -> bool:
    """Whether `error` says that memory ran out. Only a `RuntimeError` is read: torch has no class of its own for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


@contextlib.contextmanager
def said_plainly(where: str, batch_size: int) -> Iterator[None]:
    """Memory that runs out in the block becomes a fault. where: ``epoch 3``.

    Raises:
        TrainingError: out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        raise TrainingError(Fault(where, f"out of memory with batch_size {batch_size}", way_out=WAY_OUT)) from error
