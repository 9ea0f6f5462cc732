"""The global random states as one of several runs in a process has them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


class Chance:
    """What a run has drawn so far moves on with it: runs that take turns draw what each would draw by itself."""

    def __init__(self) -> None:
        self._state = _now()

    def put_back(self) -> None:
        """Make the global states those that were kept."""
        _set(self._state)

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """While the block runs the global states are this one's; then those before it again."""
        before = _now()
        _set(self._state)
        try:
            yield
        finally:
            self._state = _now()
            _set(before)


def _now() -> tuple[object, ...]:
    return (
        torch.get_rng_state(),
        torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        np.random.get_state(),
        random.getstate(),
    )


def _set(state: tuple[Any, ...]) -> None:
    of_cpu, of_gpu, of_numpy, of_python = state
    torch.set_rng_state(of_cpu)
    if of_gpu is not None:
        torch.cuda.set_rng_state(of_gpu)
    np.random.set_state(of_numpy)
    random.setstate(of_python)
